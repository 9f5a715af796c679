"""A conversation to learn from, whatever shape its row came in."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What an assistant asks a tool."""

    id: str
    name: str
    arguments: str  # a JSON object


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str
    supervised: bool  # an assistant's, unless its weight is 0
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant's
    tool_call_id: str = ""  # of a tool's: which call it answers

    @property
    def said(self) -> str:
        """The content and what is asked of tools, as one text."""
        calls = (f"{call.name}({call.arguments})" for call in self.tool_calls)
        return "\n".join(filter(None, (self.content, *calls)))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row: a chat, an instruction and its output, a prompt and its completion, or a text."""

    line: int  # physical line where the row starts, from 1
    messages: tuple[Message, ...]  # ends with a supervised one; of a text, that alone
    raw: bool = False  # joined as they stand: no chat template
    tools: tuple[str, ...] = ()  # that may be asked: their descriptions, a JSON object each

    @property
    def answer(self) -> str:
        return self.messages[-1].said

    @property
    def prompt(self) -> str:
        """Everything before the answer, as one text: what must not stand in training and test both.

        A text has nothing before it, and must not stand in both itself.
        """
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n".join(f"{message.role}: {message.said}" for message in self.messages[:-1])
