"""The rules of a dead letter: it is closed once, by a retry or by giving it up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from domain.dead_letters.commands import DeadLetterCommand, DiscardDeadLetter, RetryDeadLetter
from domain.dead_letters.events import DeadLetterDiscarded, DeadLetterEvent, DeadLetterRetried
from domain.errors import Rejected
from domain.messages import Decider
from domain.subjects import derived_id


class DeadLetterClosed(Rejected):
    """It was retried or discarded before; a retry that failed again left a letter of its own."""

    code = "dead_letter_closed"


@dataclass(frozen=True, slots=True)
class Open:
    """Nobody has said what shall become of it."""


@dataclass(frozen=True, slots=True)
class Closed:
    by: DeadLetterEvent


DeadLetter = Open | Closed


def letter_id(workspace: str, sequence: int) -> UUID:
    """A dead letter is known by its sequence in the stream of dead letters."""
    return derived_id(workspace, "dead_letter", str(sequence))


def decide(command: DeadLetterCommand, letter: DeadLetter) -> Sequence[DeadLetterEvent]:
    if isinstance(letter, Closed):
        done = "retried" if isinstance(letter.by, DeadLetterRetried) else "discarded"
        raise DeadLetterClosed(f"dead letter {command.letter.sequence} was {done} before")
    match command:
        case RetryDeadLetter():
            return [DeadLetterRetried(letter=command.letter, reason=command.reason)]
        case DiscardDeadLetter():
            return [DeadLetterDiscarded(letter=command.letter, reason=command.reason)]
        case _:
            assert_never(command)


def evolve(letter: DeadLetter, event: DeadLetterEvent) -> DeadLetter:
    return letter if isinstance(letter, Closed) else Closed(event)


decider: Decider[DeadLetterCommand, DeadLetter, DeadLetterEvent] = Decider(Open(), decide, evolve)
