"""Entity tags: which bytes, or which revision of a thing, a client holds or means."""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar, cast

from litestar import Request, Response

from gateway.problems import Problem

T = TypeVar("T")

_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


def revision(sequence: int, *more: int | None) -> str:
    """The tag of a thing: the log position of its last event, and of what else is shown with it.

    Only the first number is compared by ``require_revision``: the rest is no state of the thing.
    """
    return '"' + ".".join(str(number or 0) for number in (sequence, *more)) + '"'


def holds(values: Sequence[str], etag: str) -> bool:
    """Whether the tags of an ``If-None-Match`` name this one; ``*`` names any."""
    return any(_is_any(value) or etag[1:-1] in _tags(value, weak=True) for value in values)


def meant(values: Sequence[str], etag: str) -> bool:
    """Whether an ``If-Match`` lets the request through; absent, it always does. Weak tags do not."""
    if not values:
        return True
    return any(_is_any(value) or etag[1:-1] in _tags(value, weak=False) for value in values)


def answered(request: Request[Any, Any, Any], answer: T, etag: str) -> Response[T]:
    """The answer with its tag, or 304 for a client that has it."""
    headers = {"ETag": etag}
    if holds(request.headers.getall("if-none-match", []), etag):
        return cast("Response[T]", Response(None, status_code=304, headers=headers))
    return Response(answer, headers=headers)


def require_revision(request: Request[Any, Any, Any], sequence: int) -> None:
    """Let a change through only if the thing is still what the client saw; no ``If-Match`` asks nothing.

    Raises:
        Problem: ``precondition_failed``.
    """
    values = request.headers.getall("if-match", [])
    seen = {tag.partition(".")[0] for value in values for tag in _tags(value, weak=False)}
    if values and str(sequence) not in seen and not any(map(_is_any, values)):
        raise Problem(
            "precondition_failed",
            f"It is at revision {sequence} by now; read it again, then decide.",
            headers={"ETag": revision(sequence)},
        )


def _is_any(value: str) -> bool:
    return value.strip() == "*"


def _tags(value: str, *, weak: bool) -> set[str]:
    return {tag for mark, tag in _TAG.findall(value) if weak or not mark}
