"""Old payloads in today's shape: one plain function from each version to the next, and no old classes.

An event's class is never edited once it was shipped, but for optional fields. Whoever must change it
raises its `schema_version` and writes in the aggregate's `upcast.py` how the payload before becomes
the payload now. The log keeps what was written; it is upcast whenever it is read.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import from_json, to_json

Payload = dict[str, Any]
Upcast = Callable[[Payload], Payload]
Upcasts = Mapping[tuple[str, int], Upcast]  # (type, version) -> the same in the version after


def upcast(type_: str, written: int, current: int, data: bytes, upcasts: Upcasts) -> bytes:
    """A payload of version ``written`` as version ``current`` would have been written.

    Raises:
        ValueError: It is no JSON object, or there never was such a version.
    """
    payload = from_json(data)
    if not isinstance(payload, dict):
        raise ValueError(f"{type_} version {written} is no JSON object")  # noqa: TRY004 - of data
    if written < 1:
        raise ValueError(f"{type_} has no version {written}")
    for version in range(written, current):
        payload = upcasts[type_, version](payload)
    return to_json(payload)


def missing(versions: Iterable[tuple[str, int]], upcasts: Upcasts) -> list[tuple[str, int]]:
    """The steps that are not there, given each type with its version of today."""
    steps = {(type_, step) for type_, current in versions for step in range(1, current)}
    return sorted(steps - set(upcasts))
