"""What may be asked of a dead letter."""

from typing import Literal

from pydantic import Field

from domain.dead_letters.events import LetterFacts
from domain.messages import Command

MAX_REASON = 500  # characters; a sentence, not a report


class RetryDeadLetter(Command):
    """Handle the original once more."""

    type: Literal["RetryDeadLetter"] = "RetryDeadLetter"
    letter: LetterFacts
    reason: str = Field(default="", max_length=MAX_REASON)


class DiscardDeadLetter(Command):
    """Give the original up for good."""

    type: Literal["DiscardDeadLetter"] = "DiscardDeadLetter"
    letter: LetterFacts
    reason: str = Field(min_length=1, max_length=MAX_REASON)


DeadLetterCommand = RetryDeadLetter | DiscardDeadLetter
