"""What a view is: a table, the row that a message touches, and a pure function from row to row."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Table

from domain.messages import Event, Recorded

Key = tuple[Any, ...]  # values of the primary key's columns, in their order
M = TypeVar("M")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class View(Generic[M, R]):
    """``key`` is None where a message is not for this view; the row's fields are the table's columns."""

    table: Table
    row: type[R]
    key: Callable[[M], Key | None]
    project: Callable[[R | None, M], R | None]
    append_only: bool = False  # no message changes a row that is there

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self.row)]  # type: ignore[arg-type]
        if names != [column.name for column in self.table.columns]:
            raise TypeError(f"{self.row.__name__} and table {self.table.name} differ")


def as_json(value: BaseModel | None) -> dict[str, Any] | None:
    """A part of an event as a column holds it."""
    return None if value is None else value.model_dump(mode="json")


def stream_key(recorded: Recorded[Event]) -> Key:
    """Of a view with one row a stream."""
    return recorded.stream.workspace, recorded.stream.id
