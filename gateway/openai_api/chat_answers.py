"""What ``POST /v1/chat/completions`` answers, whole and in chunks."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from domain.inference import End, Piece
from domain.inference import TokenLogprob as Token
from gateway.openai_api.generating import Answer, Question
from gateway.openai_api.usage import FinishReason, Usage, finish_reason, usage_of


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct):
    content: list[TokenLogprob]
    refusal: None = None


class AssistantMessage(msgspec.Struct):
    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: list[Any] = []


class Choice(msgspec.Struct):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None


class ChatCompletion(msgspec.Struct):
    """`model` is the version that answered."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: None = None


class Delta(msgspec.Struct, omit_defaults=True):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    system_fingerprint: None = None


class ChatForm:
    """How answers are told to whoever asked over this route."""

    def __init__(
        self, id_: str, created: int, question: Question, *, logprobs: bool, with_usage: bool
    ) -> None:
        self._id = f"chatcmpl-{id_}"
        self._created = created
        self._question = question
        self._logprobs = logprobs
        self.with_usage = with_usage

    def whole(self, answers: Sequence[Answer]) -> ChatCompletion:
        choices = [
            Choice(
                index,
                AssistantMessage(answer.text),
                finish_reason(answer.end),
                self._logprobs_of(answer.tokens),
            )
            for index, answer in enumerate(answers)
        ]
        usage = usage_of([answer.end for answer in answers], self._question.choices)
        return ChatCompletion(self._id, self._created, self._question.model, choices, usage)

    def begun(self, index: int) -> bytes:
        return self._chunk(ChunkChoice(index, Delta("assistant", "")))

    def piece(self, index: int, piece: Piece) -> bytes:
        logprobs = self._logprobs_of(piece.logprobs) if piece.logprobs else None
        return self._chunk(ChunkChoice(index, Delta(content=piece.text), logprobs))

    def ended(self, index: int, end: End) -> bytes:
        return self._chunk(ChunkChoice(index, Delta(), finish_reason=finish_reason(end)))

    def usage(self, ends: Sequence[End]) -> bytes:
        return self._encoded([], usage_of(ends, self._question.choices))

    def _chunk(self, choice: ChunkChoice) -> bytes:
        return self._encoded([choice], None if self.with_usage else msgspec.UNSET)

    def _encoded(
        self, choices: list[ChunkChoice], usage: Usage | msgspec.UnsetType | None
    ) -> bytes:
        chunk = ChatCompletionChunk(
            self._id, self._created, self._question.model, choices, usage=usage
        )
        return msgspec.json.encode(chunk)

    def _logprobs_of(self, tokens: Sequence[Token]) -> Logprobs | None:
        return Logprobs([_logprob(token) for token in tokens]) if self._logprobs else None


def _logprob(token: Token) -> TokenLogprob:
    top = [TopLogprob(text, logprob, list(raw)) for text, logprob, raw in token.top]
    return TokenLogprob(token.token, token.logprob, list(token.bytes), top)
