"""Takes secrets out of what is logged: keys, passwords, seeds, tickets, tokens, credentials in headers."""

import logging
import re
import traceback
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, SecretStr
from typing_extensions import override

FIELDS: Final = "fields"  # `extra={FIELDS: {…}}` gives members of a JSON line
HIDDEN: Final = "***"
SHORTEST: Final = 8  # a shorter secret is as likely a word of the message itself
# What is read of one value; bounded, lest a crafted message costs quadratic time.
_URL: Final = re.compile(r"://([^\s:/@?#]{0,200})(:\S{0,500})?@")
_RULES: Final = (
    (re.compile(r"fpk_(\w{8})_\w+"), rf"fpk_\1_{HIDDEN}"),
    (re.compile(r"fjt_([0-9a-f]{32})_\w+"), rf"fjt_\1_{HIDDEN}"),
    (re.compile(r"S[ACNOUX][A-Z2-7]{40,}"), HIDDEN),  # NKey seeds are 58 characters long
    # Base64 of `{"…`, a dot, a signature: tickets, and JSON web tokens.
    (re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{16,}(?:\.[\w-]+)?"), HIDDEN),
    (re.compile(r"/(blobs|archives)/[\w-]{16,}\.[\w-]+"), rf"/\1/{HIDDEN}"),
    (
        re.compile(r"(authorization['\"]?\s{0,4}[:=,]\s{0,4}(?:b?['\"])?)[^\r\n'\"]{1,2000}", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(bearer\s{1,4})[^\s'\"]{8,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s'\"]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"((?:passw(?:or)?d|secret(?:[_-]?key)?|pepper|token|api[_-]?key|access[_-]?key|seed)"
            r"(?:_hmac)?['\"]?\s{0,4}[=:]\s{0,4}(?:b?['\"])?)[^\s'\",;&}\])]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)  # fmt: skip
# One look at a line that holds nothing of the kind, as nearly all do.
_SUSPECT: Final = re.compile(
    r"fpk_|fjt_|://[^\s/]*@|://[^\s/]*:|S[ACNOUX][A-Z2-7]{40}|eyJ|/blobs/|/archives/|X-Amz-"
    r"|(?i:authorization|bearer|passw|secret|pepper|token|[_-]key|apikey|accesskey|seed)"
)


class Redactor:
    """Knows the forms of secrets, and the very secrets that this process was given."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        values = sorted({text for text in known if len(text) >= SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        if _SUSPECT.search(text) is None:
            return text
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        return _URL.sub(_without_password, text)


class Redaction(logging.Filter):
    """A handler's filter: what passes it, message and traceback, holds no secret any more."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except (TypeError, ValueError, KeyError):  # it does not fit its arguments; say both
            said = f"{record.msg} {record.args!r}"
        record.msg, record.args = self._redact(said), None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = self._redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self._redact(record.stack_info)
        if fields := getattr(record, FIELDS, None):
            setattr(record, FIELDS, {name: self._plain(value) for name, value in fields.items()})
        return True

    def _plain(self, value: object) -> object:
        return self._redact(value) if isinstance(value, str) else value


def secrets_of(section: BaseModel) -> list[str]:
    """Every secret among the settings, however deep."""
    found: list[str] = []
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        if isinstance(value, BaseModel):
            found += secrets_of(value)
        elif isinstance(value, SecretStr):
            found.append(value.get_secret_value())
    return found


def _without_password(match: "re.Match[str]") -> str:
    """The user may stay; where there is no password, what stands before the @ is a token."""
    return f"://{match[1]}:{HIDDEN}@" if match[2] else f"://{HIDDEN}@"
