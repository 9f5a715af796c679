"""Rows of a table to a matrix of numbers: filled, scaled, and one column for each category."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.datasets.tables import TableColumn, TableSchema

Values = Mapping[str, float | str | None]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Numeric:
    """What training has seen of a column of numbers."""

    median: float  # takes the place of a missing number
    mean: float
    scale: float  # standard deviation, or 1 where all numbers are the same
    missing: int  # cells of the training rows


@dataclass(frozen=True, slots=True)
class Features:
    """The same for every family: numbers minus their mean over their scale, categories as 0 or 1."""

    columns: tuple[TableColumn, ...]
    numeric: dict[str, Numeric]

    @classmethod
    def fit(cls, schema: TableSchema, rows: Sequence[Values]) -> "Features":
        """Take what is needed from the training rows, and from no others."""
        columns = schema.inputs
        numbers = {
            column.name: _numeric([row[column.name] for row in rows])
            for column in columns
            if column.role == "numeric"
        }
        return cls(columns, numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the matrix's columns."""
        found: list[str] = []
        for column in self.columns:
            if column.role == "numeric":
                found.append(column.name)
            else:
                found += [f"{column.name}={category}" for category in column.categories]
        return tuple(found)

    def matrix(self, rows: Sequence[Values]) -> Matrix:
        """Give (rows, features) float64; a missing category is 0 in all columns of its own."""
        parts = [
            self._part(column, [row.get(column.name) for row in rows]) for column in self.columns
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(rows), 0))

    def missing(self, row: Values) -> tuple[str, ...]:
        """Name the columns of a row that say nothing."""
        return tuple(column.name for column in self.columns if row.get(column.name) is None)

    def filled(self) -> dict[str, int]:
        """How many training cells took the median of their column, of those with any."""
        return {name: each.missing for name, each in self.numeric.items() if each.missing}

    def _part(self, column: TableColumn, values: Sequence[float | str | None]) -> Matrix:
        known = self.numeric.get(column.name)
        if known is not None:
            filled = [known.median if value is None else float(value) for value in values]
            return ((np.array(filled, dtype=np.float64) - known.mean) / known.scale)[:, None]
        place = {category: at for at, category in enumerate(column.categories)}
        part = np.zeros((len(values), len(place)))
        for at, value in enumerate(values):
            if value is not None and str(value) in place:
                part[at, place[str(value)]] = 1.0
        return part

    def as_json(self) -> dict[str, Any]:
        return {
            name: {
                "median": each.median,
                "mean": each.mean,
                "scale": each.scale,
                "missing": each.missing,
            }
            for name, each in self.numeric.items()
        }

    @classmethod
    def from_json(cls, schema: TableSchema, content: Mapping[str, Any]) -> "Features":
        return cls(schema.inputs, {name: Numeric(**each) for name, each in content.items()})


def _numeric(values: Sequence[float | str | None]) -> Numeric:
    present = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(present):
        return Numeric(0.0, 0.0, 1.0, len(values))
    median = float(np.median(present))
    filled = np.array([median if value is None else float(value) for value in values])
    scale = float(filled.std())
    return Numeric(median, float(filled.mean()), scale or 1.0, len(values) - len(present))
