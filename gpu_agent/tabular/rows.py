"""Rows of a table, read by the schema of the job and parted as the job says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.datasets.rows import read_table
from domain.datasets.split import assign_group_splits
from domain.datasets.table_groups import group_rows, leaked_table_rows
from domain.datasets.table_scan import TableRow
from domain.datasets.tables import TableSchema
from domain.jobs.spec import DatasetRef, JobSpec
from gpu_agent.data import read_chunks
from gpu_agent.outcomes import DataUnreadable


@dataclass(frozen=True, slots=True)
class TableSplits:
    schema: TableSchema
    labels: tuple[str, ...]  # of the training rows, sorted
    train: tuple[TableRow, ...]
    validation: tuple[TableRow, ...]
    test: tuple[TableRow, ...]
    groups: int  # of all rows but those of a test file
    leaked: int  # training rows left out: their inputs or their group are in the test file
    untested: tuple[str, ...]  # labels without a row in the test part


def read_table_splits(spec: JobSpec, train: Path, test: Path | None) -> TableSplits:
    """Read the rows and part them; what was held out is never trained on, nor is its group.

    Raises:
        DataUnreadable: the bytes do not hold what was registered, or are too few to be parted.
    """
    schema = spec.train.table
    if schema is None:
        raise DataUnreadable(f"{spec.train.name}: nothing says what its columns are for")
    rows = _read(train, spec.train, schema)
    held_out = _read(test, spec.test, schema) if test and spec.test else []
    leaked = set(leaked_table_rows(rows, held_out))
    rows = [row for at, row in enumerate(rows) if at not in leaked]
    if len({row.label for row in rows}) < 2:
        raise DataUnreadable(f"{spec.train.name}: fewer than two classes are left to be told apart")
    groups = group_rows(rows)
    try:
        places = assign_group_splits(
            groups,
            [row.label for row in rows],
            seed=spec.split.seed,
            validation_fraction=spec.split.validation_fraction,
            test_fraction=0.0 if held_out else spec.split.test_fraction,
        )
    except ValueError as error:
        raise DataUnreadable(f"{spec.train.name}: {error}") from error

    def at(place: str) -> tuple[TableRow, ...]:
        return tuple(row for row, there in zip(rows, places, strict=True) if there == place)

    trained, tested = at("train"), tuple(held_out) or at("test")
    labels = tuple(sorted({row.label for row in trained}))
    if len(labels) < 2:
        raise DataUnreadable(f"{spec.train.name}: all rows of the training part are {labels[0]!r}")
    return TableSplits(
        schema=schema,
        labels=labels,
        train=trained,
        validation=tuple(row for row in at("validation") if row.label in labels),
        test=tested,
        groups=len(set(groups)),
        leaked=len(leaked),
        untested=tuple(sorted(set(labels) - {row.label for row in tested})),
    )


def _read(path: Path, ref: DatasetRef, schema: TableSchema) -> list[TableRow]:
    try:
        return list(read_table(read_chunks(path), ref.format, schema, ref.delimiter))
    except (OSError, ValueError) as error:
        raise DataUnreadable(f"{ref.name}: {error}") from error


def in_words(row: TableRow) -> str:
    """A row as a line for people, its inputs in the order of the file."""
    return ", ".join(f"{name} {shown(value)}" for name, value in row.values.items())


def shown(value: float | str | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:g}"


def values_of(rows: Sequence[TableRow]) -> list[Mapping[str, float | str | None]]:
    return [row.values for row in rows]


def label_numbers(rows: Sequence[TableRow], labels: Sequence[str]) -> list[int]:
    """The place of each row's label among ``labels``, or −1."""
    number = {label: at for at, label in enumerate(labels)}
    return [number.get(row.label, -1) for row in rows]
