"""What no answer, no header and no line of a log may hold."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.tickets import ticket_key

PUBLIC: Final = frozenset({"agent_id", "stack_id"})  # in the file of secrets, and shown to viewers
# How our own mistakes look from outside. Of a traceback and a statement the form is enough.
_FORMS: Final = {
    "a traceback": re.compile(rb"Traceback \(most recent call last\)|File \\?\"/[^\"]+\", line \d"),
    "an SQL statement": re.compile(
        rb"\bSELECT\s[^<>{}]{1,300}\sFROM\s|\bINSERT\s+INTO\s|\bUPDATE\s+\w+\s+SET\s"
        rb"|\bDELETE\s+FROM\s|psycopg|sqlalchemy\.",
    ),
    "a seed of an NKey": re.compile(rb"\bS[ACNOUX][A-Z2-7]{56}\b"),
}


class Leaks:
    """Knows the secrets of one gateway, in the forms in which they could get out."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._needles = {
            form: name for name, secret in secrets.items() for form in _forms_of(secret)
        }

    def in_text(self, text: bytes) -> list[str]:
        found = {name for form, name in self._needles.items() if form in text}
        return sorted(found | {name for name, form in _FORMS.items() if form.search(text)})

    def in_answer(self, headers: Iterable[tuple[str, str]], body: bytes) -> list[str]:
        lines = "\n".join(f"{name}: {value}" for name, value in headers)
        return sorted({*self.in_text(lines.encode()), *self.in_text(body)})


def secrets_of_stack(folder: Path, keys: Mapping[str, str]) -> dict[str, str]:
    """Everything that is secret about the stack in this data directory; `keys` by whose they are."""
    stored = json.loads((folder / "secrets.json").read_text())
    return {
        **dict(_texts(stored)),
        **secrets_of_keys(keys),
        "the key of tickets": ticket_key(stored["api_key_pepper"].encode()).hex(),
        "the data directory": str(folder),
    }


def secrets_of_keys(keys: Mapping[str, str]) -> dict[str, str]:
    """Keys by whose they are; the secret half of one alone opens as much as the whole."""
    return {f"the key of {whose}": text.split("_")[2] for whose, text in keys.items()}


def _texts(value: Mapping[str, Any], within: str = "") -> Iterable[tuple[str, str]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _texts(item, f"{name}.")
        elif isinstance(item, str) and name not in PUBLIC:
            yield f"{within}{name}", item


def _forms_of(secret: str) -> set[bytes]:
    text = secret.encode()
    forms = {text, text.hex().encode(), base64.b64encode(text).rstrip(b"=")}
    if re.fullmatch(r"([0-9a-f]{2}){16,}", secret):
        raw = bytes.fromhex(secret)
        forms |= {base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")}
    return forms
