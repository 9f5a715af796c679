"""Tickets: signed texts in a URL that let whoever holds one do one thing until a given second.

Nothing is kept of a ticket, so any gateway with the same pepper reads what another issued, and a
ticket cannot be taken back: that is why they are short-lived.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

import msgspec

from gateway.problems import Problem

MAX_CHARS: Final = 4096  # ours have a few hundred; more is not looked at
_BLOB: Final = "blob"
_ARCHIVE: Final = "archive"

T = TypeVar("T", bound="Ticket | ArchiveTicket")
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to read or to bring one blob."""

    verb: Literal["GET", "PUT"]
    sha256: Sha256
    expires_at: int  # unix seconds
    filename: str = ""  # what a download is called
    size: int | None = None  # PUT: exactly so many bytes
    holder: str = ""  # the actor it was issued to
    dataset_id: UUID | None = None  # of a person's, which may be gone before the ticket is


@dataclass(frozen=True, slots=True)
class ArchiveTicket:
    """Leave to read the ZIP of one version of a model, or one file of it."""

    model: str
    number: int
    version_id: UUID
    expires_at: int  # unix seconds
    path: str | None = None  # of the file; None for the ZIP
    holder: str = ""


def ticket_key(pepper: bytes) -> bytes:
    """The key that tickets are signed with: drawn from the pepper, so there is no new secret."""
    return hmac.new(pepper, b"finetrail tickets", hashlib.sha256).digest()


class Tickets:
    """Issues tickets and reads them: ``base64url(json).base64url(HMAC-SHA256)``."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, ticket: Ticket) -> str:
        return self._seal(_BLOB, ticket)

    def read(self, text: str, now: int) -> Ticket:
        """What a ticket allows.

        Raises:
            Problem: ``ticket_invalid`` where we did not sign it, ``ticket_expired`` after its time.
        """
        return self._open(_BLOB, text, now, Ticket)

    def issue_archive(self, ticket: ArchiveTicket) -> str:
        return self._seal(_ARCHIVE, ticket)

    def read_archive(self, text: str, now: int) -> ArchiveTicket:
        """As ``read``, of a ticket for an archive; one for a blob is not taken for it."""
        return self._open(_ARCHIVE, text, now, ArchiveTicket)

    def _seal(self, purpose: str, ticket: Ticket | ArchiveTicket) -> str:
        body = _encode(msgspec.json.encode(ticket))
        return f"{body}.{self._signature(purpose, body)}"

    def _open(self, purpose: str, text: str, now: int, kind: type[T]) -> T:
        body, _, signature = text.partition(".")
        # Compared as texts: two spellings of one signature are not both taken.
        good = len(text) <= MAX_CHARS and hmac.compare_digest(
            signature.encode(), self._signature(purpose, body).encode()
        )
        try:
            ticket = msgspec.json.decode(_decode(body), type=kind) if good else None
        except (binascii.Error, msgspec.DecodeError):
            ticket = None  # signed by a newer build, which means something else by it
        if ticket is None:
            raise Problem("ticket_invalid", "This link is not one of ours, or was cut; ask anew.")
        if now >= ticket.expires_at:
            raise Problem("ticket_expired", "This link is past its time; ask for another.")
        return ticket

    def _signature(self, purpose: str, body: str) -> str:
        signed = f"{purpose}\x1f{body}".encode()
        return _encode(hmac.new(self._key, signed, hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
