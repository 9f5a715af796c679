"""Errors to RFC 9457 problem details; the only module that knows which error has which status."""

import errno
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from domain.errors import BusUnavailable, CommandTimeout, StoreUnavailable
from domain.messages import Outcome
from gateway.request_id import request_id
from projections.registry import ReadModelUnavailable

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2  # embedded servers are back within a second or two
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="finetrail"'}
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.+?)`(?: - at `\$\.?(.*)`)?")
_MISSING_FIELD: Final = re.compile(r"Object missing required field `(.+?)`(?: - at `\$\.?(.*)`)?")
_DESERIALIZING: Final = "deserializing"  # how msgspec's error differs from one of ours

_log = logging.getLogger(__name__)

# code -> status; codes are stable, each has its paragraph in docs/reference/problems.md
STATUS: Final = MappingProxyType(
    {
        "bad_request": 400,
        "invalid_request": 400,
        "invalid_host": 400,
        "invalid_upload": 400,
        "unauthenticated": 401,
        "forbidden": 403,
        "forbidden_source": 403,
        "join_token_expired": 403,
        "join_token_invalid": 403,
        "ticket_expired": 403,
        "ticket_invalid": 403,
        "blob_missing": 404,
        "not_found": 404,
        "route_not_found": 404,
        "method_not_allowed": 405,
        "agent_exists": 409,
        "agent_revoked": 409,
        "dead_letter_closed": 409,
        "dataset_exists": 409,
        "dataset_unusable": 409,
        "evaluation_exists": 409,
        "job_exists": 409,
        "job_has_ended": 409,
        "join_token_used": 409,
        "key_exists": 409,
        "labels_differ": 409,
        "link_exists": 409,
        "log_chunk_differs": 409,
        "logs_overlap": 409,
        "method_unfit": 409,
        "misaddressed": 409,
        "no_active_version": 409,
        "not_a_classifier": 409,
        "not_started": 409,
        "not_sealed": 409,
        "not_storable": 409,
        "not_yours": 409,
        "person_exists": 409,
        "person_forgotten": 409,
        "rejected": 409,
        "stale_attempt": 409,
        "version_exists": 409,
        "version_not_ready": 409,
        "webhook_exists": 409,
        "webhook_incomplete": 409,
        "precondition_failed": 412,
        "payload_too_large": 413,
        "too_large": 413,
        "unsupported_media_type": 415,
        "range_not_satisfiable": 416,
        "blob_differs": 422,
        "unreadable_dataset": 422,
        "queue_quota_reached": 429,
        "internal_error": 500,
        "command_failed": 500,
        "prediction_failed": 500,
        "not_ready": 503,
        "log_unavailable": 503,
        "read_model_unavailable": 503,
        "inference_unavailable": 503,
        "statistics_unavailable": 503,
        "webhooks_unavailable": 503,
        "people_unavailable": 503,
        "storage_unavailable": 503,
        "storage_full": 507,
    }
)
_OF_STATUS: Final = MappingProxyType(
    {
        400: "bad_request",
        401: "unauthenticated",
        403: "forbidden",
        404: "route_not_found",
        405: "method_not_allowed",
        413: "too_large",
        415: "unsupported_media_type",
    }
)


class Problem(Exception):
    """An answer that is an error. ``code`` is stable; ``extras`` become members of the body."""

    def __init__(
        self, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **extras: Any
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = STATUS.get(code, 409)  # a refusal of a newer domain
        self.detail = detail
        self.headers = dict(headers or {})
        self.extras = extras


def refusal(outcome: Outcome) -> Problem:
    """What a command that was not recorded means to the one who sent it."""
    if outcome.status == "failed":
        return Problem("command_failed", "The command could not be decided; it was put aside.")
    return Problem(outcome.code or "rejected", outcome.message)


def as_response(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """The exception handler of every route."""
    problem = as_problem(error)
    if problem is None:
        _log.error("request %s failed", request_id(request.scope), exc_info=error)
        problem = Problem("internal_error", "The request failed; the log of the gateway says why.")
    return Response(
        body_of(problem, str(request_id(request.scope))),
        status_code=problem.status,
        media_type=PROBLEM_JSON,
        headers=headers_of(problem),
    )


def headers_of(problem: Problem) -> dict[str, str]:
    headers = dict(problem.headers)
    if problem.status == 401:
        headers |= _CHALLENGE
    if problem.status == 503:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return headers


def body_of(problem: Problem, request: str) -> dict[str, Any]:
    return {
        "type": f"urn:finetrail:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:uuid:{request}",
        "code": problem.code,
        **problem.extras,
    }


def as_problem(error: Exception) -> Problem | None:
    """The problem that an exception stands for; None for our own mistakes."""
    match error:
        case Problem():
            return error
        case ValidationException():
            return _invalid(error)
        case HTTPException() if error.status_code < 500:
            return _of_framework(error)
        case UnicodeDecodeError():
            return Problem("bad_request", "The request is not UTF-8.")
        case RecursionError() if _DESERIALIZING in str(error):
            return Problem("bad_request", "The request body is nested too deeply.")
        case ReadModelUnavailable():
            return Problem("read_model_unavailable", "The read model cannot be reached now.")
        case StoreUnavailable() | BusUnavailable() | CommandTimeout():
            return Problem("log_unavailable", "The event log cannot be reached now.")
        case OSError() if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Problem("storage_full", "No space is left to store this; nothing was kept.")
        case ConnectionError() if error.errno in {errno.ETIMEDOUT, errno.ECONNREFUSED}:
            return Problem("storage_unavailable", "The blob store cannot be reached now.")
        case _:
            return None


def _of_framework(error: HTTPException) -> Problem:
    code = _OF_STATUS.get(error.status_code, "bad_request")
    details = {
        "route_not_found": "There is no such route, or an id in the path is not one.",
        "method_not_allowed": "The route does not know this method; Allow names those it knows.",
        "too_large": "The request body is larger than this route takes.",
    }
    headers = {name.title(): value for name, value in (error.headers or {}).items()}
    return Problem(code, details.get(code, error.detail), headers=headers)


def _invalid(error: ValidationException) -> Problem:
    """Name every field that is wrong, and what would be right."""
    extra = error.extra if isinstance(error.extra, list) else []
    errors = [_field_error(item) for item in extra if isinstance(item, dict)]
    summary = "; ".join(f"{item['field']}: {item['message']}" for item in errors)
    return Problem("invalid_request", summary or error.detail, errors=errors)


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    message, field = str(item.get("message", "")), str(item.get("key", ""))
    source = str(item.get("source", "body"))
    if unknown := _UNKNOWN_FIELD.match(message):
        field, message = _dotted(unknown[2], unknown[1]), "there is no such field"
    elif missing := _MISSING_FIELD.match(message):
        field, message = _dotted(missing[2], missing[1]), "it is required"
    elif field == "data":
        field = "body"
        message = message if message != "'data'" else "a JSON object is required"
    return {"field": field, "in": source, "message": message}


def _dotted(path: str | None, name: str) -> str:
    return f"{path}.{name}" if path else name


def invalid(field: str, message: str, source: str = "query") -> Problem:
    """One field of a request that the schema alone could not refuse."""
    wrong = {"field": field, "in": source, "message": message}
    return Problem("invalid_request", f"{field}: {message}", errors=[wrong])
