"""What is said about running work but decides nothing: log lines and step metrics."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LEVELS: tuple[Level, ...] = ("DEBUG", "INFO", "WARNING", "ERROR")


class LogLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    time: datetime
    level: Level = "INFO"
    message: str = Field(max_length=8192)
    source: Literal["worker", "kernel", "system"] = "worker"


class LogEmitted(BaseModel):
    """Several lines a message: they are collected for a moment before they are sent."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: ClassVar[str] = "LogEmitted"

    lines: tuple[LogLine, ...]


class StepMetrics(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int
    epoch: float
    loss: float  # mean cross-entropy, nats per row
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    eta_s: float
    time: datetime


class MetricsLogged(BaseModel):
    """One training step or several, in order."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: ClassVar[str] = "MetricsLogged"

    steps: tuple[StepMetrics, ...]
