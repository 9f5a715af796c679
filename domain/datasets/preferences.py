"""Answers that people have compared or rated, whatever shape their row came in."""

from dataclasses import dataclass

from domain.datasets.conversations import Conversation, Message


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two answers to one prompt, one of which is the better."""

    line: int  # physical line where the row starts, from 1
    prompt: tuple[Message, ...]  # none of them supervised
    chosen: str
    rejected: str
    raw: bool = False  # joined as they stand: no chat template
    tools: tuple[str, ...] = ()  # that may be asked: their descriptions, a JSON object each

    def answered(self) -> tuple[Conversation, Conversation]:
        """The conversation with the better answer, and the one with the worse."""
        return (self._with(self.chosen), self._with(self.rejected))

    def _with(self, answer: str) -> Conversation:
        return answer_to(self.prompt, answer, self.line, raw=self.raw, tools=self.tools)


@dataclass(frozen=True, slots=True)
class RatedCompletion:
    """An answer to a prompt, and whether more like it are wanted."""

    line: int
    prompt: tuple[Message, ...]
    completion: str
    desirable: bool
    raw: bool = False
    tools: tuple[str, ...] = ()

    def answered(self) -> Conversation:
        return answer_to(self.prompt, self.completion, self.line, raw=self.raw, tools=self.tools)


def answer_to(
    prompt: tuple[Message, ...],
    answer: str,
    line: int,
    *,
    raw: bool,
    tools: tuple[str, ...] = (),
) -> Conversation:
    """Put an answer behind a prompt; nothing but the answer is learned."""
    messages = (*prompt, Message("assistant", answer, supervised=True))
    return Conversation(line, messages, raw, tools)
