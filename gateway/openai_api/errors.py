"""Errors under ``/v1`` in OpenAI's form, whatever raised them."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from litestar import Request, Response

from domain.work import Failed
from gateway.problems import Problem, as_problem, headers_of
from gateway.request_id import request_id

PREFIX: Final = "/v1"
BUSY_S: Final = 1  # a place becomes free when any of sixteen answers ends
CLIENT_GONE: Final = 499  # nobody reads it
NO_RETRY: Final = {"x-should-retry": "false"}

_log = logging.getLogger(__name__)

# our code -> theirs, where they have one
_CODES: Final = MappingProxyType(
    {
        "unauthenticated": "invalid_api_key",
        "forbidden": "insufficient_permissions",
        "route_not_found": "unknown_url",
        "method_not_allowed": "method_not_supported",
        "invalid_request": None,
        "bad_request": None,
    }
)


class Failure(Exception):
    """An answer that is an error as OpenAI would say it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        error = {
            "message": self.message,
            "type": _type_of(self.status),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


class ClientGone(Exception):
    """Whoever asked has closed the connection."""


def speaks_openai(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def refused(param: str, message: str, code: str | None = None) -> Failure:
    """One parameter that cannot be taken as it is."""
    return Failure(400, message, code=code, param=param)


def of_agent(error: Failed) -> Failure:
    """What an agent's refusal, or its silence, means to the one who asked."""
    said = f"{error.message[:1].upper()}{error.message[1:]}."
    if error.code == "busy":
        headers = {"Retry-After": str(BUSY_S), "retry-after-ms": str(BUSY_S * 1000)}
        return Failure(429, said, code="rate_limit_exceeded", headers=headers)
    if error.code in {"context_too_long", "too_long"}:
        return Failure(400, said, code="context_length_exceeded")
    if error.code == "bad_request":
        return Failure(400, said)
    if error.retryable:
        return of_problem(Problem("inference_unavailable", said), code=error.code)
    return Failure(500, said, code=error.code, headers=NO_RETRY)


def of_problem(problem: Problem, code: str | None = None) -> Failure:
    wrong = problem.extras.get("errors") or [{}]
    return Failure(
        # Clients repeat what is answered with 409; a refusal by the rules stays one.
        400 if problem.status == 409 else problem.status,
        problem.detail,
        code=code or _CODES.get(problem.code, problem.code),
        param=wrong[0].get("field"),
        headers=headers_of(problem),
    )


def as_failure(error: Exception, request: str) -> Failure:
    """Say an exception in OpenAI's form; our own mistakes go into the log."""
    if isinstance(error, Failure):
        return error
    problem = as_problem(error)
    if problem is None:
        _log.error("request %s failed", request, exc_info=error)
        return Failure(500, "The request failed; the log of the gateway says why.")
    return of_problem(problem)


def as_response(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """The exception handler of every route under ``/v1``, and of those that do not exist."""
    if isinstance(error, ClientGone):
        return Response({}, status_code=CLIENT_GONE)
    failure = as_failure(error, str(request_id(request.scope)))
    return Response(
        failure.body,
        status_code=failure.status,
        media_type="application/json",
        headers=failure.headers,
    )


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
