"""Answers questions about rows of tables: small models, read once and computed with numpy."""

import time
from collections import OrderedDict
from pathlib import Path
from typing import Final
from uuid import UUID

from domain.inference import ServedModel
from domain.work import Prediction, PredictReply
from gpu_agent.lately_used import remembered
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.protocol import ServingRequest
from gpu_agent.tabular.model import TabularModel

MODELS: Final = 32  # some hundred kilobytes each


class TablePredictor:
    def __init__(self) -> None:
        self._models: OrderedDict[UUID, TabularModel] = OrderedDict()

    def warm(self, served: ServedModel, folder: Path) -> None:
        """Read a model, so that its first request need not wait for it.

        Raises:
            CheckpointUnreadable: it cannot be read, or tells other classes.
        """
        if served.version_id is not None:
            self._model(served.version_id, served.labels, folder)

    def answer(self, request: ServingRequest) -> PredictReply:
        """Give the probability of every class for every row.

        Raises:
            CheckpointUnreadable: the model cannot be read, or tells other classes.
        """
        began = time.monotonic()
        model = self._model(request.version_id, request.labels, request.adapter_folder)
        predictions = []
        if request.rows:
            shares = model.probabilities(request.rows).tolist()
            for row, by_label in zip(request.rows, shares, strict=True):
                found = dict(zip(model.labels, by_label, strict=True))
                best = max(found, key=found.__getitem__)
                missing = model.features.missing(row)
                predictions.append(Prediction(label=best, scores=found, missing=missing))
        return PredictReply(
            request_id=request.request_id,
            predictions=tuple(predictions),
            seconds=time.monotonic() - began,
        )

    def _model(self, version_id: UUID, labels: tuple[str, ...], folder: Path) -> TabularModel:
        def load() -> TabularModel:
            model = TabularModel.load(folder)
            if model.labels != labels:
                raise CheckpointUnreadable("the model was trained for other classes")
            return model

        return remembered(self._models, version_id, load, MODELS)
