"""What became of a message that was put aside, and who wanted it so."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from domain.messages import Event

LetterKind = Literal["commands", "reactions", "webhooks"]


class LetterFacts(BaseModel):
    """What the log keeps of a dead letter, which itself is gone once it is closed."""

    model_config = ConfigDict(frozen=True)

    sequence: int  # in the stream of dead letters
    # A command that could not be decided, or an event that could not be followed up or delivered.
    kind: LetterKind
    subject: str  # where the original was found
    message_type: str
    message_id: str
    failure: str  # why it was put aside


class DeadLetterRetried(Event):
    type: Literal["DeadLetterRetried"] = "DeadLetterRetried"
    letter: LetterFacts
    reason: str


class DeadLetterDiscarded(Event):
    type: Literal["DeadLetterDiscarded"] = "DeadLetterDiscarded"
    letter: LetterFacts
    reason: str


DeadLetterEvent = DeadLetterRetried | DeadLetterDiscarded
