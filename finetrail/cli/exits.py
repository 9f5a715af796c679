"""Exit codes, and what went wrong in a paragraph."""

import sys
from enum import IntEnum

from pydantic import ValidationError

from finetrail.client.errors import (
    ApiError,
    FinetrailError,
    Forbidden,
    LineProblem,
    NotFound,
    ServerUnreachable,
    Unauthorized,
    Unavailable,
)
from finetrail.owner import KeyNotIssued
from finetrail.render import Table, clean, write_json, write_table
from finetrail.settings import SettingMissing
from finetrail.stack.errors import StackError


class Exit(IntEnum):
    """What a script may rely on."""

    OK = 0
    FAILED = 1  # the job, the evaluation or the command itself
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4  # the key, its role, a rule, or what was sent
    UNREACHABLE = 5
    INTERRUPTED = 130


class UsageProblem(Exception):
    """What was typed cannot be meant, though the words are known."""


class Failed(Exception):
    """The command did what it could, and the outcome is a failure."""


KNOWN = (
    FinetrailError,
    KeyNotIssued,
    StackError,
    SettingMissing,
    UsageProblem,
    Failed,
    ValidationError,
    OSError,
)


def exit_code(error: Exception) -> Exit:
    match error:
        case NotFound():
            return Exit.NOT_FOUND
        case ServerUnreachable() | Unavailable() | KeyNotIssued():
            return Exit.UNREACHABLE
        case ApiError() if 400 <= error.status < 500:
            return Exit.REFUSED
        case UsageProblem() | SettingMissing() | FileNotFoundError() | IsADirectoryError():
            return Exit.USAGE
        case _:
            return Exit.FAILED


def report(error: Exception, *, as_json: bool) -> None:
    """Say what went wrong: one JSON object on standard output, or a paragraph on standard error."""
    if as_json:
        write_json({"error": _facts(error)})
        return
    sys.stderr.write(f"error: {clean(_sentence(error))}\n")
    problems = error.line_problems if isinstance(error, ApiError) else []
    if problems:
        write_table(_problem_table(problems), sys.stderr)
    if hint := _hint(error):
        sys.stderr.write(hint + "\n")


def _facts(error: Exception) -> dict[str, object]:
    facts: dict[str, object] = {
        "code": error.code if isinstance(error, ApiError) else type(error).__name__,
        "message": _sentence(error),
        "exit_code": int(exit_code(error)),
    }
    if isinstance(error, ApiError):
        facts |= {"status": error.status, "problem": error.problem}
    return facts


def _sentence(error: Exception) -> str:
    match error:
        case ApiError():
            return f"{error.detail or error.title or 'refused'} ({error.code})"
        case StackError():
            return error.message
        case OSError() if error.filename:
            return f"{error.filename}: {error.strerror}"
        case ValidationError():
            return "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
            )
        case _:
            return str(error)


def _hint(error: Exception) -> str:
    match error:
        case Unauthorized():
            return (
                "Name a key by --key or FINETRAIL_API_KEY; who owns the data directory makes one "
                "with `finetrail keys issue`."
            )
        case Forbidden():
            return "Ask for a key with a higher role: viewer, editor, admin."
        case ServerUnreachable():
            return "Start one with `finetrail up`, or name it by --url or FINETRAIL_URL."
        case StackError():
            return error.hint
        case _:
            return ""


def _problem_table(problems: list[LineProblem]) -> Table:
    return Table(
        ("line", "column", "field", "what is wrong", "what would be right"),
        [
            (
                str(each.line),
                "" if each.column is None else str(each.column),
                each.field or "",
                each.message,
                each.expected,
            )
            for each in problems
        ],
    )
