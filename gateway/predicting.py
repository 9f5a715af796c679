"""Predictions: which version answers is looked up anew for every request."""

from collections.abc import Sequence
from typing import Final

import msgspec
from litestar.types import HTTPScope

from domain.blobs import BlobRef, FileEntry
from domain.work import Failed, PredictRequest
from gateway.ports import Inference
from gateway.problems import Problem, invalid
from gateway.registry import require_model, require_ready, require_version
from gateway.request_id import request_id
from gateway.table_rows import Values, checked_rows
from projections.model_versions import VersionRow
from projections.queries import Queries

DEADLINE_S: Final = 30.0  # the first request of a version loads it, which takes seconds
FOLDERS: Final = ("lora_adapters/", "model/")  # of an adapter, of a model of a table
AWAY: Final = frozenset({"no_agent", "timed_out", "no_connection"})


class PredictedText(msgspec.Struct):
    """The most probable label, its probability, and those of all labels."""

    label: str
    score: float
    scores: dict[str, float]
    missing: list[str] | msgspec.UnsetType = msgspec.UNSET  # of a row: columns that told nothing


class Predictions(msgspec.Struct):
    """One for each text or row, in order; `seconds` is the time of the model alone."""

    model: str
    version: int
    predictions: list[PredictedText]
    seconds: float


class Predictor:
    """Asks the agents that serve a model."""

    def __init__(self, inference: Inference, queries: Queries, workspace: str) -> None:
        self._inference = inference
        self._queries = queries
        self._workspace = workspace

    async def predict(
        self,
        scope: HTTPScope,
        name: str,
        number: int | None,
        texts: list[str] | None,
        rows: Sequence[Values] | None,
    ) -> Predictions:
        """Ask with texts or with rows, whichever the model answers to.

        Raises:
            Problem: There is nothing to ask, it is not what the model answers to, or nobody answers.
        """
        if (texts is None) == (rows is None):
            raise invalid("texts", "this or `rows`, one of the two", "body")
        version = await self._version(name, number)
        tabular = version.method == "tabular"
        if tabular != (rows is not None):
            wanted, why = ("rows", "of a table") if tabular else ("texts", "of texts")
            raise invalid(wanted, f"{name} is a model {why}; ask it with `{wanted}`", "body")
        asked = len(rows or texts or ())
        request = PredictRequest(
            request_id=str(request_id(scope)),
            workspace=self._workspace,
            model_id=version.model_id,
            version_id=version.id,
            base_model=version.base_model,
            labels=tuple(version.labels),
            adapter=adapter_of(version),
            max_length=version.spec["hyperparameters"]["max_length"],
            texts=tuple(texts or ()),
            rows=checked_rows(version.spec["train"]["table"], rows) if rows else (),
        )
        reply = await self._inference.predict(request, timeout_s=DEADLINE_S)
        if reply.error is not None:
            raise _failed(reply.error)
        if len(reply.predictions) != asked:
            raise Problem("prediction_failed", "The agent answered for another number of texts.")
        found = [
            PredictedText(
                one.label,
                one.scores.get(one.label, 0.0),
                one.scores,
                list(one.missing) if tabular else msgspec.UNSET,
            )
            for one in reply.predictions
        ]
        return Predictions(version.model, version.number, found, reply.seconds)

    async def _version(self, name: str, number: int | None) -> VersionRow:
        model = await require_model(self._queries, self._workspace, name)
        chosen = number if number is not None else model.active_number
        if chosen is None:
            raise Problem(
                "no_active_version", f"No version of {name} is active; activate one first."
            )
        version = (await require_version(self._queries, self._workspace, model, chosen)).row
        require_ready(version)
        if version.method not in {"sequence_classification", "tabular"}:
            raise Problem(
                "not_a_classifier",
                f"{name} is a language model: ask it at POST /v1/chat/completions, "
                f'with "{name}" as model.',
            )
        return version


def adapter_of(version: VersionRow) -> tuple[FileEntry, ...]:
    """The files that inference needs, by their path inside the folder they are shipped in."""
    return tuple(
        FileEntry(
            path=file["path"].removeprefix(folder),
            blob=BlobRef(sha256=file["sha256"], size=file["size"], crc32=file["crc32"]),
        )
        for folder in FOLDERS
        for file in version.files
        if file["path"].startswith(folder)
    )


def _failed(error: Failed) -> Problem:
    if error.code in AWAY or error.retryable:
        return Problem("inference_unavailable", f"No prediction now: {error.message}.")
    return Problem("prediction_failed", f"The agent could not predict: {error.message}.")
