"""A conversation in the terminal: what was said, what is said now, and the words that steer it."""

import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final

from finetrail.cli.exits import report
from finetrail.client import (
    ApiError,
    ChatMessage,
    ChatPiece,
    Client,
    Forbidden,
    NotFound,
    Unauthorized,
)
from finetrail.render import clean, write_json

PROMPT: Final = "> "
WORDS: Final = "/system TEXT, /reset, /quit"
_HOPELESS: Final = (NotFound, Unauthorized, Forbidden)  # the next question would fare no better


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float | None
    max_tokens: int | None
    seed: int | None


class Conversation:
    """Remembers what was said, and asks for the next answer with all of it."""

    def __init__(
        self, client: Client, model: str, sampling: Sampling, system: str | None, *, as_json: bool
    ) -> None:
        self._client = client
        self._sampling = sampling
        self._as_json = as_json
        self._said: list[ChatMessage] = []
        self.model = model
        self.system = system

    def answers_as(self) -> str:
        """The version that answers now; an error if there is none."""
        return str(self._client.language_model(self.model)["root"])

    def reset(self) -> None:
        self._said = []

    def say(self, text: str) -> None:
        """Say this and show the answer; one that is interrupted is kept as far as it came."""
        question = ChatMessage(role="user", content=text)
        pieces: list[ChatPiece] = []
        try:
            self._answer(question, pieces)
        finally:
            answer = "".join(piece.text for piece in pieces)
            if answer:
                self._said += [question, ChatMessage(role="assistant", content=answer)]
        if self._as_json:
            write_json(_facts(answer, pieces))

    def _answer(self, question: ChatMessage, pieces: list[ChatPiece]) -> None:
        asked = [*self._told(), *self._said, question]
        chat = self._client.chat(
            self.model,
            asked,
            temperature=self._sampling.temperature,
            max_tokens=self._sampling.max_tokens,
            seed=self._sampling.seed,
        )
        with closing(chat):
            for piece in chat:
                pieces.append(piece)
                if not self._as_json:
                    _show(piece.text)
        if not self._as_json:
            _show("\n")

    def _told(self) -> list[ChatMessage]:
        return [ChatMessage(role="system", content=self.system)] if self.system else []


def converse(conversation: Conversation) -> None:
    """Answer line by line until the lines end, or until somebody says so."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        _tell(f"{conversation.answers_as()} listens ({WORDS}; Ctrl-C stops an answer)")
        with suppress(ImportError):
            import readline  # noqa: F401 - gives the prompt its history and its editing
    while (line := _next_line(at_terminal)) is not None:
        if line.startswith("/"):
            if line == "/quit":
                return
            _steer(conversation, line)
        elif line:
            _say(conversation, line, at_terminal=at_terminal)


def _next_line(at_terminal: bool) -> str | None:
    """The next line that was typed; None behind the last."""
    while True:
        try:
            return input(PROMPT if at_terminal else "").strip()
        except EOFError:
            if at_terminal:
                _show("\n")
            return None
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            _show("\n")
            _tell("/quit or Ctrl-D ends the talk")


def _say(conversation: Conversation, line: str, *, at_terminal: bool) -> None:
    try:
        conversation.say(line)
    except KeyboardInterrupt:
        if not at_terminal:
            raise
        _show("\n")
        _tell("(stopped)")
    except ApiError as error:
        if not at_terminal or isinstance(error, _HOPELESS):
            raise
        _show("\n")
        report(error, as_json=False)


def _steer(conversation: Conversation, line: str) -> None:
    word, _, rest = line.partition(" ")
    match word:
        case "/reset":
            conversation.reset()
            _tell("(forgotten)")
        case "/system":
            conversation.system = rest.strip() or None
            _tell("(noted)" if conversation.system else "(nothing is told beforehand)")
        case _:
            _tell(f"{word} is none of {WORDS}")


def _facts(answer: str, pieces: list[ChatPiece]) -> dict[str, object]:
    ended = [piece.finish_reason for piece in pieces if piece.finish_reason]
    cost = [piece.usage for piece in pieces if piece.usage]
    return {
        "model": pieces[-1].model,
        "message": {"role": "assistant", "content": answer},
        "finish_reason": ended[-1] if ended else None,
        "usage": cost[-1] if cost else None,
    }


def _show(text: str) -> None:
    """As it was said, but nothing in it steers the terminal."""
    sys.stdout.write("".join(char if char in "\n\t" else clean(char) for char in text))
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"{clean(text)}\n")
