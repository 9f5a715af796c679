"""Asks the projections process of a running stack to fill views anew, and follows how far it is.

It is asked by a row in Postgres, so a gateway need not run, and what was asked for outlives both.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from difflib import get_close_matches
from typing import Any, Final

import asyncpg
from pydantic import BaseModel

from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from projections import tables
from projections.postgres import AWAY
from projections.projection import Projection, registry, step_metrics

LOOK_S: Final = 0.25
UNHEARD_S: Final = 20.0  # a process that restarts takes less

_TABLE: Final = tables.projection_rebuild.fullname
_ASK: Final = (
    f"INSERT INTO {_TABLE} (projection, views, reason, status) "  # noqa: S608 - our own name
    "VALUES ($1, $2, 'asked', 'asked') RETURNING id"
)
_ENDED: Final = "CASE WHEN status IN ('switched', 'failed') THEN updated_at ELSE now() END"
_LOOK: Final = f"""
    SELECT id, views, status, sequence, goal, parked, found, error, switch_ms,
        extract(epoch FROM coalesce(filled_at, now()) - began_at) AS filling_s,
        extract(epoch FROM {_ENDED} - asked_at) AS seconds
    FROM {_TABLE} WHERE id = ANY ($1) ORDER BY id
"""  # noqa: S608 - our own names
_OTHERS: Final = f"SELECT true FROM {_TABLE} WHERE status IN ('filling', 'switching') LIMIT 1"  # noqa: S608 - our own name
_TAKE_BACK: Final = (
    f"UPDATE {_TABLE} SET status = 'failed', error = 'nobody took it' "  # noqa: S608 - our own name
    "WHERE id = ANY ($1) AND status = 'asked'"
)


class NoSuchView(Exception):
    """Its text names those that are near."""


class Difference(BaseModel):
    """Rows that were not what the log says, and the key of one of them."""

    rows: int
    key: dict[str, str]


class Parked(BaseModel):
    """A view that cannot take in a message, and was left as it was."""

    sequence: int
    error: str


class Progress(BaseModel):
    """How far a rebuild is; ``goal`` is where the log ends."""

    views: list[str]
    status: str  # asked, filling, switching, switched, failed
    sequence: int
    goal: int
    seconds: float  # since it was asked for
    events_per_s: float  # while it was filled
    eta_s: float | None
    differences: dict[str, Difference]
    parked: dict[str, Parked]
    switch_ms: float | None
    error: str | None

    @property
    def ended(self) -> bool:
        return self.status in {"switched", "failed"}

    @property
    def switched(self) -> list[str]:
        """The views that are replaced, once it has ended."""
        if self.status != "switched":
            return []
        return [view for view in self.views if view not in self.parked]


async def rebuild(settings: Settings, view: str | None) -> AsyncGenerator[Sequence[Progress], None]:
    """Have one view, or all of them, filled anew; says how far that is until it has ended.

    Raises:
        NoSuchView: There is none of that name.
        StackError: Postgres is away, or nobody takes it up.
    """
    chosen = _chosen(view)
    try:
        connection = await asyncpg.connect(settings.postgres_dsn, timeout=5)
    except AWAY as error:
        raise StackError(
            f"PostgreSQL does not answer: {error}.", "Is the stack running? Try `finetrail doctor`."
        ) from error
    try:
        ids = [
            await connection.fetchval(_ASK, projection.name, views) for projection, views in chosen
        ]
        began, done = time.monotonic(), False
        while not done:
            await asyncio.sleep(LOOK_S)
            seconds = time.monotonic() - began
            rows = await connection.fetch(_LOOK, ids)
            progress = [_progress(row) for row in rows]
            yield progress
            done = all(one.ended for one in progress)
            if seconds > UNHEARD_S and all(one.status == "asked" for one in progress):
                await _see_that_it_is_heard(connection, ids)
    except asyncpg.UndefinedTableError as error:
        raise StackError(
            "There are no read models yet, or they are an older version's.",
            "Start the stack with this version first: `finetrail up`.",
        ) from error
    except AWAY as error:
        raise StackError(
            f"PostgreSQL went away: {error}.",
            "What was asked for is kept, and goes on when it is back.",
        ) from error
    finally:
        await connection.close(timeout=5)


def _chosen(view: str | None) -> list[tuple[Projection[Any], list[str]]]:
    every = [
        (projection, [one.name for one in projection.views])
        for projection in (registry, step_metrics)
    ]
    if view is None:
        return every
    for projection, names in every:
        if view in names:
            return [(projection, [view])]
    names = [name for _, its in every for name in its]
    near = ", ".join(get_close_matches(view, names) or sorted(names))
    raise NoSuchView(f"there is no view {view!r}; perhaps one of {near}")


async def _see_that_it_is_heard(
    connection: "asyncpg.Connection[asyncpg.Record]", ids: Sequence[int]
) -> None:
    if await connection.fetchval(_OTHERS):
        return  # it waits for its turn
    await connection.execute(_TAKE_BACK, ids)
    raise StackError(
        f"No projections process of this version took it up within {UNHEARD_S:.0f} s.",
        "Does `finetrail up` (or `finetrail projections`) run, and is it this version?",
    )


def _progress(row: asyncpg.Record) -> Progress:
    filling_s = float(row["filling_s"] or 0)
    rate = row["sequence"] / filling_s if filling_s else 0.0
    left = row["goal"] - row["sequence"]
    return Progress(
        views=row["views"],
        status=row["status"],
        sequence=row["sequence"],
        goal=row["goal"],
        seconds=round(float(row["seconds"]), 2),
        events_per_s=round(rate, 1),
        eta_s=round(left / rate, 1) if rate and row["status"] == "filling" else None,
        differences=json.loads(row["found"] or "{}"),
        parked={
            view: Parked(sequence=at, error=why)
            for view, (at, why) in json.loads(row["parked"] or "{}").items()
        },
        switch_ms=row["switch_ms"],
        error=row["error"],
    )
