"""A small typed client for a Finetrail server: `from finetrail.client import Client`."""

from finetrail.client.chat import ChatMessage, ChatPiece
from finetrail.client.client import Client
from finetrail.client.errors import (
    ApiError,
    Conflict,
    DownloadFailed,
    FinetrailError,
    Forbidden,
    Invalid,
    LineProblem,
    NotFound,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
    WaitTimeout,
)
from finetrail.client.models import (
    Dataset,
    Evaluation,
    EvaluationSummary,
    Event,
    Job,
    LogLine,
    Model,
    Prediction,
    StepMetrics,
    Version,
)

__all__ = [
    "ApiError",
    "ChatMessage",
    "ChatPiece",
    "Client",
    "Conflict",
    "Dataset",
    "DownloadFailed",
    "Evaluation",
    "EvaluationSummary",
    "Event",
    "FinetrailError",
    "Forbidden",
    "Invalid",
    "Job",
    "LineProblem",
    "LogLine",
    "Model",
    "NotFound",
    "Prediction",
    "ServerUnreachable",
    "StepMetrics",
    "Unauthorized",
    "Unavailable",
    "Version",
    "WaitTimeout",
]
