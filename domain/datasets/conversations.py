"""A conversation to learn from, whatever shape its row came in."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    supervised: bool  # an assistant's, unless its weight is 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row: a chat, an instruction and its output, or a prompt and its completion."""

    line: int  # physical line where the row starts, from 1
    messages: tuple[Message, ...]  # ends with a supervised one
    raw: bool = False  # a prompt and its completion, joined as they stand: no chat template

    @property
    def answer(self) -> str:
        return self.messages[-1].content

    @property
    def prompt(self) -> str:
        """Everything before the answer, as one text: what must not stand in training and test both."""
        return "\n".join(f"{message.role}: {message.content}" for message in self.messages[:-1])
