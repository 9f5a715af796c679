"""The schema ``archive`` of Postgres: every event once more, chained, and what was signed of the chain.

It is no read model: no rebuild drops it, and nothing in it is ever changed but the checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from domain.audit import START, Head, Key

SCHEMA: Final = "archive"
COLUMNS: Final = ("sequence", "recorded_at", "subject", "headers", "data", "hash")
Row = tuple[int, datetime | None, str, bytes, bytes, bytes]  # in the order of the columns

_LOCK: Final = 0x66746172  # "ftar": one process at a time makes the schema
_MAKE: Final = """
    CREATE SCHEMA IF NOT EXISTS archive;
    CREATE TABLE archive.event (
        sequence bigint PRIMARY KEY,
        recorded_at timestamptz, -- drawn from ce-time, to look events up by
        subject text NOT NULL,
        headers bytea NOT NULL,
        data bytea NOT NULL,
        hash bytea NOT NULL
    );
    CREATE INDEX event_recorded_at ON archive.event USING brin (recorded_at);
    CREATE TABLE archive.key (
        key text PRIMARY KEY,
        public_key text NOT NULL,
        time text NOT NULL,
        by text NOT NULL,
        signature text NOT NULL
    );
    CREATE TABLE archive.head (
        sequence bigint PRIMARY KEY,
        log text NOT NULL,
        hash text NOT NULL,
        time text NOT NULL,
        key text NOT NULL REFERENCES archive.key,
        signature text NOT NULL
    );
    CREATE TABLE archive.published (
        place text PRIMARY KEY,
        sequence bigint NOT NULL,
        error text,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE archive.checkpoint (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        sequence bigint NOT NULL,
        hash bytea NOT NULL,
        log bytea,
        events bigint NOT NULL,
        error text,
        updated_at timestamptz NOT NULL
    );
    INSERT INTO archive.checkpoint (sequence, hash, events, updated_at)
    VALUES (0, decode(repeat('00', 32), 'hex'), 0, now());
"""
_MOVE: Final = (
    "UPDATE archive.checkpoint SET sequence = $1, hash = $2, log = $3, events = events + $4, "
    "error = NULL, updated_at = now() WHERE sequence = $5 AND hash = $6 RETURNING sequence"
)
_ADD_HEAD: Final = (
    "INSERT INTO archive.head (sequence, log, hash, time, key, signature) "
    "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (sequence) DO NOTHING"
)
_HEADS: Final = (
    "SELECT log, sequence, hash, time, key, signature FROM archive.head "
    "WHERE sequence > $1 ORDER BY sequence LIMIT $2"
)
_CURSOR: Final = (
    "INSERT INTO archive.published (place, sequence, error, updated_at) VALUES ($1, $2, $3, now()) "
    "ON CONFLICT (place) DO UPDATE SET sequence = greatest(published.sequence, excluded.sequence), "
    "error = excluded.error, updated_at = now()"
)


class Moved(Exception):
    """Somebody else has moved the archive's checkpoint."""


class KeyUnknown(Exception):
    """A key that none of those has vouched for by which heads were signed before."""


@dataclass(frozen=True, slots=True)
class Chain:
    """How far the chain is, and the hash that it has there."""

    sequence: int = 0
    hash: bytes = START
    log: bytes | None = None  # the first event's hash; None before there is one


async def make(connection: "asyncpg.Connection[Any]") -> None:
    """Make the schema where it is missing."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        if not await is_there(connection):
            await connection.execute("SET LOCAL synchronous_commit = on")
            await connection.execute(_MAKE)


async def is_there(connection: "asyncpg.Connection[Any]") -> bool:
    found = await connection.fetchval("SELECT to_regclass('archive.checkpoint')")
    return found is not None


async def chain(connection: "asyncpg.Connection[Any]") -> Chain:
    found = await connection.fetchrow("SELECT sequence, hash, log FROM archive.checkpoint")
    if found is None:
        raise Moved("the archive's checkpoint is gone")
    return Chain(found["sequence"], found["hash"], found["log"])


async def hash_before(connection: "asyncpg.Connection[Any]", sequence: int) -> bytes:
    """The hash of the last event before this one."""
    find = "SELECT hash FROM archive.event WHERE sequence < $1 ORDER BY sequence DESC LIMIT 1"
    found: bytes | None = await connection.fetchval(find, sequence)
    return found or START


async def hashes(
    connection: "asyncpg.Connection[Any]", sequences: Sequence[int]
) -> dict[int, bytes]:
    find = "SELECT sequence, hash FROM archive.event WHERE sequence = ANY($1)"
    return {row["sequence"]: row["hash"] for row in await connection.fetch(find, sequences)}


async def append(
    connection: "asyncpg.Connection[Any]", before: Chain, after: Chain, rows: Sequence[Row]
) -> None:
    """Write rows and move the checkpoint, in the caller's transaction.

    Raises:
        Moved: The checkpoint is not where it is believed to be; nothing is to be written.
    """
    values = (after.sequence, after.hash, after.log, len(rows), before.sequence, before.hash)
    if not await connection.fetch(_MOVE, *values):
        raise Moved(f"the archive's checkpoint is no longer at {before.sequence}")
    await connection.copy_records_to_table(
        "event", schema_name=SCHEMA, columns=COLUMNS, records=rows
    )


async def add_keys(connection: "asyncpg.Connection[Any]", keys: Sequence[Key]) -> None:
    """Take over keys that are vouched for; the first of all vouches for itself."""
    known = {row["key"] for row in await connection.fetch("SELECT key FROM archive.key")}
    for key in keys:
        if key.key not in known and (key.by in known or (not known and key.by == key.key)):
            await connection.execute(
                "INSERT INTO archive.key (key, public_key, time, by, signature) "
                "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                *(key.key, key.public_key, key.time, key.by, key.signature),
            )
            known.add(key.key)


async def add_heads(connection: "asyncpg.Connection[Any]", heads: Sequence[Head]) -> None:
    """Write heads; one that is there stays.

    Raises:
        KeyUnknown: One was signed by a key that is not in the archive.
    """
    records = [(h.sequence, h.log, h.hash, h.time, h.key, h.signature) for h in heads]
    try:
        await connection.executemany(_ADD_HEAD, records)
    except asyncpg.ForeignKeyViolationError as error:
        raise KeyUnknown(
            "the audit key is not the one that signed before, and that one has not vouched for it: "
            "put the former key back, or make a new one with `finetrail audit rotate-key`"
        ) from error


async def keys(connection: "asyncpg.Connection[Any]") -> list[Key]:
    """All keys, each behind the one that has vouched for it."""
    rows = await connection.fetch("SELECT * FROM archive.key ORDER BY time, key <> by, key")
    return [Key(**dict(row)) for row in rows]


async def heads(
    connection: "asyncpg.Connection[Any]", after: int = 0, limit: int = 1_000_000
) -> list[Head]:
    return [Head(**dict(row)) for row in await connection.fetch(_HEADS, after, limit)]


async def last_head(connection: "asyncpg.Connection[Any]") -> Head | None:
    rows = await connection.fetch("SELECT max(sequence) FROM archive.head")
    if rows[0][0] is None:
        return None
    return (await heads(connection, rows[0][0] - 1, 1))[0]


async def unsigned(connection: "asyncpg.Connection[Any]", after: int) -> int:
    """How many events stand behind this head."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM archive.event WHERE sequence > $1", after
    )
    return count


async def cursor(connection: "asyncpg.Connection[Any]", place: str) -> int:
    """Up to which head a place has them."""
    find = "SELECT sequence FROM archive.published WHERE place = $1"
    found: int | None = await connection.fetchval(find, place)
    return found or 0


async def move_cursor(
    connection: "asyncpg.Connection[Any]", place: str, sequence: int, error: str | None = None
) -> None:
    await connection.execute(_CURSOR, place, sequence, error)
