"""Dead letters over HTTP: what could not be handled, looked at, retried or given up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from domain.dead_letters.commands import (
    MAX_REASON,
    DeadLetterCommand,
    DiscardDeadLetter,
    RetryDeadLetter,
)
from domain.dead_letters.dead_letter import letter_id
from domain.dead_letters.events import LetterFacts, LetterKind
from domain.messages import StreamId
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from gateway.ports import Feed, FeedMessage
from gateway.problems import Problem

READ: Final = 100  # letters asked for at once
MAX_SEQUENCE: Final = 2**63 - 1
HIDDEN: Final = "(hidden)"
# Nothing that lets anybody in is shown, not even as the keyed hash that the log holds.
SECRET: Final = re.compile(
    r"secret|password|pepper|hmac|credential|(?:^|_)(?:token|seed)$", re.IGNORECASE
)
SECRET_IN_TEXT: Final = re.compile(
    r'("[^"]*(?:secret|password|pepper|hmac|credential|token|seed)"\s*:\s*")[^"]*', re.IGNORECASE
)

Status = Literal["retried", "discarded"]


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""


class DiscardBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_REASON)]


class DeadLetter(msgspec.Struct):
    """A command that could not be decided, an event that could not be followed up or told a webhook."""

    sequence: int
    status: Literal["open"]
    kind: LetterKind
    subject: str
    type: str
    message_id: str
    reason: str
    put_aside_at: datetime
    size: int
    retry_of: int | None  # the letter whose retry failed again and led to this one


class WholeDeadLetter(DeadLetter):
    """With the original: `body` when it is JSON, else `text`. What is secret is hidden."""

    headers: dict[str, str]
    body: Any
    text: str | None


class ClosedDeadLetter(msgspec.Struct):
    """What the log now says of the letter; `log_sequence` is where."""

    sequence: int
    status: Status
    reason: str
    log_sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Letters:
    """The open dead letters of one workspace."""

    feed: Feed
    workspace: str

    async def page(self, after: int, limit: int) -> Page[DeadLetter]:
        found: list[DeadLetter] = []
        more = True
        while more and len(found) <= limit:
            messages, more = await self.feed.page("DEAD", "dead.>", after, READ)
            found += [_letter(each) for each in messages if self._is_ours(each)]
            after = messages[-1].sequence if messages else after
            more = more and bool(messages)
        shown = found[:limit]
        rest = len(found) > limit
        return Page(shown, encode_cursor(shown[-1].sequence) if rest else None)

    async def read(self, sequence: int) -> FeedMessage | None:
        if not 0 < sequence <= MAX_SEQUENCE:
            return None
        messages, _ = await self.feed.page("DEAD", "dead.>", sequence - 1, 1)
        there = messages and messages[0].sequence == sequence and self._is_ours(messages[0])
        return messages[0] if there else None

    async def closing(self, sequence: int) -> FeedMessage | None:
        """The event that closed the letter, if one did."""
        stream = StreamId(self.workspace, "dead_letter", letter_id(self.workspace, sequence))
        return await self.feed.last("EVENTS", stream.subject)

    async def absent(self, sequence: int) -> Problem:
        """Why there is no such letter any more."""
        if closed := await self.closing(sequence):
            said = f"Dead letter {sequence} was {_status(closed)} before."
            return Problem("dead_letter_closed", said)
        return Problem("not_found", f"There is no dead letter {sequence}.")

    def _is_ours(self, message: FeedMessage) -> bool:
        tokens = message.headers.get("dead-subject", "").split(".")
        return len(tokens) > 2 and tokens[-3] == self.workspace


class DeadLettersController(Controller):
    path = "/dead-letters"
    tags = ("dead letters",)

    @get("/")
    async def list_dead_letters(
        self, letters: NamedDependency[Letters], limit: Limit = 20, cursor: Cursor = None
    ) -> Page[DeadLetter]:
        """The open ones, oldest first. A letter that nobody closes is kept for 90 days."""
        return await letters.page(decode_cursor(cursor) or 0, limit)

    @get("/{sequence:int}")
    async def dead_letter(
        self, sequence: FromPath[int], letters: NamedDependency[Letters]
    ) -> WholeDeadLetter:
        """One with its whole original."""
        message = await letters.read(sequence)
        if message is None:
            raise await letters.absent(sequence)
        return _whole(message)

    @post("/{sequence:int}/retry", status_code=202)
    async def retry(
        self,
        sequence: FromPath[int],
        letters: NamedDependency[Letters],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        data: JSONBody[RetryBody | None] = None,
    ) -> ClosedDeadLetter:
        """Handle the original once more, under its own id: what was done already is not done twice.

        It closes this letter. Should the original fail again, it comes back as another one.
        """
        reason = data.reason if data else ""
        message = await letters.read(sequence)
        if message is None:
            return await _done_before(letters, sequence, caller, reason)
        command = RetryDeadLetter(letter=facts_of(message), reason=reason)
        return await _close(letters, caller, commands, command, "retried")

    @post("/{sequence:int}/discard", status_code=200)
    async def discard(
        self,
        sequence: FromPath[int],
        data: JSONBody[DiscardBody],
        letters: NamedDependency[Letters],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
    ) -> ClosedDeadLetter:
        """Give the original up for good; the log keeps what it was, who did it, and the reason."""
        message = await letters.read(sequence)
        if message is None:
            return await _done_before(letters, sequence, caller, data.reason)
        command = DiscardDeadLetter(letter=facts_of(message), reason=data.reason)
        return await _close(letters, caller, commands, command, "discarded")


async def _close(
    letters: Letters,
    caller: Caller,
    commands: Commands,
    command: DeadLetterCommand,
    status: Status,
) -> ClosedDeadLetter:
    sequence = command.letter.sequence
    id_ = letter_id(letters.workspace, sequence)
    done: Done = await commands.send(caller, "dead_letter", id_, command)
    return ClosedDeadLetter(sequence, status, command.reason, done.sequence, note_of(done))


async def _done_before(
    letters: Letters, sequence: int, caller: Caller, reason: str
) -> ClosedDeadLetter:
    """The same answer to the same request, although the letter is gone by now.

    Raises:
        Problem: It was somebody else's request that closed it, or there never was such a letter.
    """
    closed = await letters.closing(sequence)
    if closed is None or closed.headers.get("ce-causationid") != str(caller.command_id):
        raise await letters.absent(sequence)
    return ClosedDeadLetter(sequence, _status(closed), reason, closed.sequence)


def _status(closing: FeedMessage) -> Status:
    return "retried" if closing.headers.get("ce-type") == "DeadLetterRetried" else "discarded"


def facts_of(message: FeedMessage) -> LetterFacts:
    """What the log keeps of a letter."""
    letter = _letter(message)
    return LetterFacts(
        sequence=letter.sequence,
        kind=letter.kind,
        subject=letter.subject,
        message_type=letter.type,
        message_id=letter.message_id,
        failure=letter.reason,
    )


def _letter(message: FeedMessage) -> DeadLetter:
    return DeadLetter(**_members(message))


def _whole(message: FeedMessage) -> WholeDeadLetter:
    headers = {
        name: value
        for name, value in message.headers.items()
        if not name.startswith(("Nats-", "dead-"))
    }
    try:
        body, text = _without_secrets(msgspec.json.decode(message.data)), None
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
        text = SECRET_IN_TEXT.sub(rf"\1{HIDDEN}", message.data.decode(errors="replace"))
    return WholeDeadLetter(**_members(message), headers=headers, body=body, text=text)


def _members(message: FeedMessage) -> dict[str, Any]:
    headers: Mapping[str, str] = message.headers
    retry_of = headers.get("dead-retry-of", "")
    return {
        "sequence": message.sequence,
        "status": "open",
        "kind": message.subject.split(".")[1],
        "subject": headers.get("dead-subject", ""),
        "type": headers.get("ce-type", ""),
        "message_id": headers.get("webhook-id") or headers.get("ce-id", ""),
        "reason": headers.get("dead-reason", ""),
        "put_aside_at": datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        "size": len(message.data),
        "retry_of": int(retry_of) if retry_of.isdecimal() else None,
    }


def _without_secrets(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item, name) for item in value]
    return HIDDEN if isinstance(value, str) and SECRET.search(name) else value
