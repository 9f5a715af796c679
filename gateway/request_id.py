"""One id for each request: the correlation id of what it sets off, answered as ``X-Request-Id``."""

from uuid import UUID

from litestar.types import HTTPScope
from uuid_utils.compat import uuid7


def request_id(scope: HTTPScope) -> UUID:
    """The request's id, made when it is asked for first."""
    known: UUID = scope["state"].setdefault("request_id", uuid7())
    return known
