"""What could not be handled, put aside with its reason and everything needed to send it again."""

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

from domain.subjects import ONLY_ONE
from handlers.ports import Publish

PREFIX: Final = "dead"
MAX_REASON: Final = 1000  # characters; a header, not a report
DIGITS: Final = 32  # of the digest: nobody searches for two messages that have the same

SUBJECT: Final = "dead-subject"  # where the original was found
SEQUENCE: Final = "dead-sequence"  # its sequence in the stream it was in
REASON: Final = "dead-reason"
WEBHOOK_ID: Final = "webhook-id"  # the id under which a receiver was sent the event
RETRY_OF: Final = "dead-retry-of"  # the letter that was retried and led to this one


class DeadLetters:
    """Writes to ``dead.<kind>.<aggregate>.<digest>``, where there is one letter of a message.

    Put aside once more, as after a crash in between, it collides with itself for as long as the
    letter is open, and not only within the server's window of duplicates.
    """

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    async def put(
        self,
        kind: str,
        subject: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        key: str,
        reason: str,
    ) -> None:
        """Keep the original whole: its subject and the reason stand beside its own headers.

        Args:
            key: names this message among all of its kind: its sequence in its stream.
        """
        # The server's own headers would be obeyed again.
        kept = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
        # A retry that fails within the server's window of duplicates is another letter.
        once_more = f".{headers[RETRY_OF]}" if RETRY_OF in headers else ""
        id_ = f"{PREFIX}.{kind}.{key}{once_more}"
        aside = {
            SUBJECT: subject,
            SEQUENCE: key,
            REASON: _one_line(reason),
            "Nats-Msg-Id": id_,
            ONLY_ONE: "0",
        }
        # A sequence alone names another message in a stream that was made anew.
        told = b"\0".join((id_.encode(), subject.encode(), body))
        place = f"{_aggregate(subject)}.{hashlib.sha256(told).hexdigest()[:DIGITS]}"
        await self._publish(f"{PREFIX}.{kind}.{place}", body, kept | aside)


class Letter(Protocol):
    """A message as it stands in the stream of dead letters."""

    @property
    def kind(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class LetterBox(Protocol):
    """The stream of dead letters."""

    async def read(self, sequence: int) -> Letter | None: ...

    async def remove(self, sequence: int) -> None: ...


def _aggregate(subject: str) -> str:
    tokens = subject.split(".")
    return tokens[-2] if len(tokens) > 2 else "unknown"


def _one_line(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()[:MAX_REASON]
