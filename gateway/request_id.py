"""One id for each request: the correlation id of what it sets off, answered as ``X-Request-Id``."""

from uuid import UUID

from litestar.types import HTTPScope
from uuid_utils.compat import uuid7


def request_id(scope: HTTPScope) -> UUID:
    """The request's id, made when it is asked for first."""
    state = scope["state"]
    if "request_id" not in state:
        state["request_id"] = uuid7()
    known: UUID = state["request_id"]
    return known
