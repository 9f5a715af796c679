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

    def answered(self) -> tuple[Conversation, Conversation]:
        """The conversation with the better answer, and the one with the worse."""
        return (
            answer_to(self.prompt, self.chosen, self.line, raw=self.raw),
            answer_to(self.prompt, self.rejected, self.line, raw=self.raw),
        )


@dataclass(frozen=True, slots=True)
class RatedCompletion:
    """An answer to a prompt, and whether more like it are wanted."""

    line: int
    prompt: tuple[Message, ...]
    completion: str
    desirable: bool
    raw: bool = False

    def answered(self) -> Conversation:
        return answer_to(self.prompt, self.completion, self.line, raw=self.raw)


def answer_to(prompt: tuple[Message, ...], answer: str, line: int, *, raw: bool) -> Conversation:
    """Put an answer behind a prompt; nothing but the answer is learned."""
    return Conversation(line, (*prompt, Message("assistant", answer, supervised=True)), raw)
