"""Dead letters that somebody closed: sent to the handlers once more, or thrown away."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from domain.dead_letters.events import DeadLetterDiscarded, DeadLetterRetried
from domain.messages import Event, Recorded
from handlers.dead_letters import REASON, RETRY_OF, SEQUENCE, SUBJECT, DeadLetters, LetterBox
from handlers.ports import Publish
from handlers.settle import Decide, Delivery, Metadata, React, Reply, settle_command, settle_event

PREFIX: Final = "retry"
# The inbox that once waited for the outcome has long been given up.
DROPPED: Final = frozenset({REASON, "reply_to"})


class Retries:
    """Empties the box of letters as the log says."""

    def __init__(self, box: LetterBox, publish: Publish) -> None:
        self._box = box
        self._publish = publish

    async def carry_out(self, recorded: Recorded[Event]) -> None:
        """Do what the event says; a letter that is gone was seen to before."""
        match recorded.event:
            case DeadLetterRetried(letter=letter):
                if letter.kind != "webhooks":  # whoever delivers to webhooks begins again itself
                    await self._send_again(letter.sequence, recorded.id)
                await self._box.remove(letter.sequence)
            case DeadLetterDiscarded(letter=letter):
                await self._box.remove(letter.sequence)
            case _:
                return

    async def _send_again(self, sequence: int, because: UUID) -> None:
        letter = await self._box.read(sequence)
        if letter is None:
            return
        original = {
            name: value
            for name, value in letter.headers.items()
            if not name.startswith("Nats-") and name not in DROPPED
        }
        # The original's own message id may still be in the server's window of duplicates.
        again = {
            SEQUENCE: letter.headers.get(SEQUENCE) or _key(letter.headers),
            RETRY_OF: str(sequence),
            "Nats-Msg-Id": str(because),
        }
        await self._publish(f"{PREFIX}.{letter.kind}", letter.body, original | again)


async def settle_retry(
    msg: Delivery, decide: Decide, react: React, reply: Reply, dead_letters: DeadLetters
) -> None:
    """Handle a dead letter's original as if it had just come, under its own id."""
    again = _Again(msg, msg.headers or {})
    if msg.subject == f"{PREFIX}.commands":
        await settle_command(again, decide, reply, dead_letters)
    else:
        await settle_event(again, react, dead_letters)


@dataclass(frozen=True, slots=True)
class _Sequences:
    stream: int


@dataclass(frozen=True, slots=True)
class _Metadata:
    num_delivered: int
    sequence: _Sequences


def _key(headers: Mapping[str, str]) -> str:
    """The original's sequence in a letter of an older build: the end of the letter's message id."""
    return headers.get("Nats-Msg-Id", "").rpartition(".")[2]


class _Again:
    """A delivery of the retry stream that speaks as the original did, where it was."""

    def __init__(self, msg: Delivery, headers: Mapping[str, str]) -> None:
        self.headers: dict[str, str] | None = dict(headers)
        self.subject = headers.get(SUBJECT, msg.subject)
        self.data = msg.data
        self.metadata: Metadata = _Metadata(
            msg.metadata.num_delivered,
            _Sequences(int(headers.get(SEQUENCE, msg.metadata.sequence.stream))),
        )
        self.ack = msg.ack
        self.ack_sync = msg.ack_sync
        self.nak = msg.nak
        self.term = msg.term
        self.in_progress = msg.in_progress
