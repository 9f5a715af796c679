"""What a view is: a table, the row that a message touches, and a pure function from row to row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import Table

from domain.catalog import EVENTS
from domain.messages import Event, Recorded
from domain.subjects import Aggregate

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
    wants: frozenset[str] | None = None  # types of messages; others are not even read for it
    append_only: bool = False  # no message changes a row that is there
    # In place of the projection's, where less than all of a message is needed.
    read: Callable[[Any], Sequence[M]] | None = None
    history: Table | None = None  # every state that its rows have had; see `projections.history`

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def tables(self) -> tuple[Table, ...]:
        """All that it writes; they move from schema to schema together."""
        return (self.table,) if self.history is None else (self.table, self.history)

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self.row)]  # type: ignore[arg-type]
        if names != [column.name for column in self.table.columns]:
            raise TypeError(f"{self.row.__name__} and table {self.table.name} differ")


class Json(str):
    """A column's JSON, written already."""

    __slots__ = ()


def events_of(*aggregates: Aggregate) -> frozenset[str]:
    return frozenset(name for name, (its, _) in EVENTS.items() if its in aggregates)


def types(*events: type[Event]) -> frozenset[str]:
    return frozenset(event.__name__ for event in events)


def changed(row: R, **changes: object) -> R:
    """`dataclasses.replace` for rows of many columns, which it takes field by field."""
    read, places = _columns(type(row))  # type: ignore[arg-type]  # a class is hashable
    values = list(read(row))
    for name, value in changes.items():
        values[places[name]] = value
    return type(row)(*values)


@lru_cache
def _columns(row: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]:
    names = [field.name for field in fields(row)]
    return attrgetter(*names), {name: place for place, name in enumerate(names)}


def as_json(value: BaseModel | None) -> dict[str, Any] | None:
    """A part of an event as a column holds it."""
    return None if value is None else value.model_dump(mode="json")


def stream_key(recorded: Recorded[Event]) -> Key:
    """Of a view with one row a stream."""
    return recorded.stream.workspace, recorded.stream.id
