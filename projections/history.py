"""What rows were: every state that a view's rows have had, kept beside them and written with them.

A state is valid from the sequence of the event that made it until that of the key's next one, so
nothing that was written is ever changed: while a log is replayed states are copied, not looked up.
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Generic

from projections.ddl import Connection
from projections.upsert import TableWriter
from projections.view import M, R, View

SINCE = "valid_from"


class StateStore(Generic[M, R]):
    """Writes the states of one view's rows."""

    def __init__(self, view: View[M, R], schema: str, *, bulk: bool) -> None:
        if view.history is None:
            raise TypeError(f"view {view.name} keeps no states")
        self._values_of = attrgetter(*(column.name for column in view.table.columns))
        self.rows = TableWriter(view.history, schema, append_only=True, bulk=bulk)

    async def write(self, connection: Connection, states: Sequence[tuple[R, int]]) -> None:
        """Write rows with the sequence from which on they were so."""
        rows = [(*self._values_of(row), since) for row, since in states]
        await self.rows.write_values(connection, rows)


@lru_cache
def state_store(view: View[M, R], schema: str, *, bulk: bool) -> StateStore[M, R]:
    """One for the life of a process: that keys were there already is found out once."""
    return StateStore(view, schema, bulk=bulk)
