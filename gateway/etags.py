"""Entity tags: which bytes, or which revision of a thing, a client holds or means."""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Protocol, TypeVar, cast

import msgspec
from litestar import Request, Response
from litestar.params import HeaderParameter

from gateway.problems import Problem

IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="The `ETag` or the `sequence` in quotes that it was read with; at another "
        "revision nothing is done and the answer is 412. Left out, it is done at any.",
    ),
]

_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


class Revised(Protocol):
    """What is answered with the log position of its last event."""

    sequence: int


R = TypeVar("R", bound=Revised)


def revision(answer: Revised) -> str:
    """The tag of an answer: the revision of the thing, then a hash of all that is shown with it.

    A job shows steps and a version shows its evaluation, which are no events of their own; so the
    revision alone would call an answer known that is not.
    """
    shown = hashlib.sha256(msgspec.json.encode(answer)).hexdigest()
    return f'"{answer.sequence}-{shown[:16]}"'


def holds(values: Sequence[str], etag: str) -> bool:
    """Whether the tags of an ``If-None-Match`` name this one; ``*`` names any."""
    return any(_is_any(value) or etag[1:-1] in _tags(value, weak=True) for value in values)


def meant(values: Sequence[str], etag: str) -> bool:
    """Whether an ``If-Match`` lets the request through; absent, it always does. Weak tags do not."""
    if not values:
        return True
    return any(_is_any(value) or etag[1:-1] in _tags(value, weak=False) for value in values)


def answered(request: Request[Any, Any, Any], answer: R) -> Response[R]:
    """The answer with its tag, or 304 for a client that has it."""
    headers = {"ETag": revision(answer)}
    if holds(request.headers.getall("if-none-match", []), headers["ETag"]):
        return cast("Response[R]", Response(None, status_code=304, headers=headers))
    return Response(answer, headers=headers)


def require_revision(if_match: str | None, sequence: int) -> None:
    """Let a change through only at a revision that ``If-Match`` names; without it, always.

    Of a tag only the revision counts: that a job went on by a step does not make it another one.

    Raises:
        Problem: ``precondition_failed``.
    """
    if if_match is None or _is_any(if_match):
        return
    if str(sequence) not in {tag.partition("-")[0] for tag in _tags(if_match, weak=False)}:
        raise Problem(
            "precondition_failed",
            f"It is at revision {sequence} by now; read it again, then decide.",
            sequence=sequence,
        )


def _is_any(value: str) -> bool:
    return value.strip() == "*"


def _tags(value: str, *, weak: bool) -> set[str]:
    return {tag for mark, tag in _TAG.findall(value) if weak or not mark}
