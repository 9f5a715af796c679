"""What can go wrong between a client and a server, as exceptions with the problem's own code."""

from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Self

import httpx


class FinetrailError(Exception):
    """Anything that this client raises on purpose."""


class ServerUnreachable(FinetrailError):
    """No usable answer: nothing listens there, the line broke, or the answer came too late.

    What was asked may have been done all the same; asking again by this client is safe.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason


class DownloadFailed(FinetrailError):
    """The file that came is not the file that was announced; nothing was left in its place."""


class WaitTimeout(FinetrailError):
    """What was waited for did not happen in the time given; it may still happen."""


@dataclass(frozen=True, slots=True)
class LineProblem:
    """One thing to mend in an uploaded file."""

    line: int
    column: int | None
    field: str | None
    code: str
    message: str
    expected: str

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        return cls(
            line=int(data.get("line") or 1),
            column=data.get("column"),
            field=data.get("field"),
            code=str(data.get("code", "")),
            message=str(data.get("message", "")),
            expected=str(data.get("expected", "")),
        )


class ApiError(FinetrailError):
    """The server answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or f"http_{status}")
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or "")
        super().__init__(f"{self.detail or self.title or 'refused'} ({self.code}, HTTP {status})")

    @property
    def line_problems(self) -> list[LineProblem]:
        """What is wrong with an uploaded file, in the order of its lines."""
        found = self.problem.get("problems")
        return [LineProblem.of(each) for each in found or [] if isinstance(each, dict)]


class Invalid(ApiError):
    """What was sent cannot be taken as it is (400, 413, 415, 422)."""


class Unauthorized(ApiError):
    """The key is missing, unknown or revoked (401)."""


class Forbidden(ApiError):
    """The key's role may not do this (403)."""


class NotFound(ApiError):
    """There is no such thing, or not any more (404, 410)."""


class Conflict(ApiError):
    """The rules say no to this in the present state (409, 412)."""


class Unavailable(ApiError):
    """The server cannot do this now; asking again later helps (429, 502, 503, 504)."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(response: httpx.Response) -> ApiError:
    """The exception for an answer that is no success; its body must have been read."""
    try:
        body = response.json()
    except (JSONDecodeError, UnicodeDecodeError):
        body = {}
    problem = _problem(body) if isinstance(body, dict) else {}
    problem.setdefault("title", response.reason_phrase)
    return _BY_STATUS.get(response.status_code, ApiError)(response.status_code, problem)


def error_in_stream(said: dict[str, Any]) -> ApiError:
    """The exception for an error that came after the answer had begun with success."""
    return ApiError(500, _problem(said))


def _problem(body: dict[str, Any]) -> dict[str, Any]:
    """An error in OpenAI's form as a problem; a problem as it is."""
    error = body.get("error")
    if not isinstance(error, dict):
        return body
    return {**error, "detail": error.get("message"), "code": error.get("code") or error.get("type")}
