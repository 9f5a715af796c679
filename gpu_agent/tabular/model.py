"""A trained model of a table: written without pickle, read back, and computed with numpy alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from domain.datasets.tables import TableSchema
from domain.jobs.tabular import GRADIENT_BOOSTING, MLP, TABULAR_MODELS
from gpu_agent.adapter_files import write_json
from gpu_agent.outcomes import CheckpointUnreadable
from gpu_agent.tabular.features import Features, Matrix, Values
from gpu_agent.tabular.trees import raw_scores, shares

WEIGHTS: Final = "model.safetensors"
DESCRIPTION: Final = "model.json"
SCHEMA: Final = "schema.json"
LABELS: Final = "labels.json"
FORMAT: Final = 1

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TabularModel:
    """Rows in, probabilities out; `arrays` are those of its family."""

    family: str
    schema: TableSchema
    features: Features
    labels: tuple[str, ...]
    arrays: Arrays

    def probabilities(self, rows: Sequence[Values]) -> Matrix:
        """Give (rows, labels) float64; every row sums to 1."""
        return self.of_matrix(self.features.matrix(rows))

    def of_matrix(self, matrix: Matrix) -> Matrix:
        match self.family:
            case family if family == GRADIENT_BOOSTING:
                return shares(raw_scores(self.arrays, matrix))
            case family if family == MLP:
                return shares(_mlp(self.arrays, matrix))
            case _:
                return shares(matrix @ self.arrays["weight"].T + self.arrays["bias"])

    def predict(self, rows: Sequence[Values]) -> list[str]:
        best = self.probabilities(rows).argmax(axis=1)
        return [self.labels[at] for at in best.tolist()]

    def save(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Write a folder of JSON and safetensors; equal models give equal bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(each) for name, each in sorted(self.arrays.items())}
        save_file(arrays, folder / WEIGHTS)
        write_json(
            folder / DESCRIPTION,
            {
                "format": FORMAT,
                "family": self.family,
                "numeric": self.features.as_json(),
                "features": list(self.features.names),
                "settings": dict(settings),
            },
        )
        write_json(folder / SCHEMA, self.schema.model_dump(mode="json"))
        write_json(folder / LABELS, list(self.labels))

    @classmethod
    def load(cls, folder: Path) -> "TabularModel":
        """Read what `save` has written.

        Raises:
            CheckpointUnreadable: it is damaged, of an unknown format, or does not fit together.
        """
        try:
            return _read(folder)
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            SafetensorError,
        ) as error:
            raise CheckpointUnreadable(f"the model cannot be read: {error}") from error


def _read(folder: Path) -> TabularModel:
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if described["format"] != FORMAT or described["family"] not in TABULAR_MODELS:
        raise ValueError(f"its format is unknown: {described['format']} {described['family']}")
    schema = TableSchema.model_validate_json((folder / SCHEMA).read_bytes())
    features = Features.from_json(schema, described["numeric"])
    labels = tuple(json.loads((folder / LABELS).read_text(encoding="utf-8")))
    model = TabularModel(described["family"], schema, features, labels, load_file(folder / WEIGHTS))
    # One row tells whether shapes and names fit.
    shape = model.of_matrix(np.zeros((1, len(features.names)))).shape
    if shape != (1, len(labels)):
        raise ValueError(f"it tells {shape[1]} classes, and {len(labels)} are named")
    return model


def _mlp(arrays: Arrays, matrix: Matrix) -> Matrix:
    """Two hidden layers with ReLU, in float64."""
    hidden = matrix
    for layer in ("0", "2"):
        weight, bias = arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]
        hidden = np.maximum(hidden @ weight.T.astype(np.float64) + bias, 0.0)
    scores: Matrix = hidden @ arrays["4.weight"].T.astype(np.float64) + arrays["4.bias"]
    return scores
