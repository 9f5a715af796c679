"""``POST /v1/chat/completions``: its request, and its answers whole and in chunks."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec

from domain.inference import End, GenerateRequest, Piece, Turn
from domain.inference import TokenLogprob as Token
from gateway.openai_api.errors import Failure, refused
from gateway.openai_api.generating import Answer, Question
from gateway.openai_api.models import Chosen
from gateway.openai_api.sampling import (
    Choices,
    Ignored,
    MaxTokens,
    Seed,
    Stop,
    StreamOptions,
    Temperature,
    TopK,
    TopP,
    Unsupported,
    refuse_stream_options,
    refuse_unsupported,
    sampling_of,
    seeded,
)
from gateway.openai_api.usage import FinishReason, Usage, finish_reason, usage_of

_UNSUPPORTED: Final = MappingProxyType[str, tuple[object, ...]](
    {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "logit_bias": ({},),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "service_tier": ("auto", "default"),
        "verbosity": ("medium",),
        "reasoning_effort": ("none",),
        "audio": (),
        "prediction": (),
        "moderation": (),
        "web_search_options": (),
    }
)
_IN_MESSAGE: Final = MappingProxyType[str, tuple[object, ...]](
    {
        "name": (),
        "refusal": (),
        "annotations": ([],),
        "audio": (),
        "tool_calls": ([],),
        "function_call": (),
        "tool_call_id": (),
    }
)


class Part(msgspec.Struct):
    """A part of a message; only text is taken."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """The fields that an answer's message has may be sent back as they came."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: Unsupported = None
    refusal: Unsupported = None
    annotations: Unsupported = None
    audio: Unsupported = None
    tool_calls: Unsupported = None
    function_call: Unsupported = None
    tool_call_id: Unsupported = None


class ChatBody(msgspec.Struct, forbid_unknown_fields=True):
    """A conversation that the model is to go on with."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    max_completion_tokens: MaxTokens | None = None
    max_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    parallel_tool_calls: Ignored = None
    tools: Unsupported = None
    tool_choice: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    response_format: Unsupported = None
    modalities: Unsupported = None
    logit_bias: Unsupported = None
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    service_tier: Unsupported = None
    verbosity: Unsupported = None
    reasoning_effort: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    moderation: Unsupported = None
    web_search_options: Unsupported = None


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


def chat_question(body: ChatBody, chosen: Chosen, workspace: str, id_: str) -> Question:
    """What is asked of an agent.

    Raises:
        Failure: Something is asked for that is not supported, or makes no sense.
    """
    refuse_unsupported(body, _UNSUPPORTED)
    refuse_stream_options(body.stream_options, stream=body.stream)
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise refused("max_tokens", "Send max_completion_tokens or max_tokens, not both.")
    if body.top_logprobs is not None and not body.logprobs:
        raise refused("top_logprobs", "top_logprobs is only allowed when logprobs is true.")
    sampling = sampling_of(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=body.stop,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    turns = tuple(_turn(message, at) for at, message in enumerate(body.messages))
    choices = body.n or 1
    requests = [
        GenerateRequest(
            request_id=f"{id_}-{choice}",
            workspace=workspace,
            served=chosen.served,
            messages=turns,
            sampling=seeded(sampling, body.seed, choice),
        )
        for choice in range(choices)
    ]
    return Question(chosen.root, chosen.inference_id, requests, choices)


class ChatForm:
    """How answers are told to whoever asked over this route."""

    def __init__(self, id_: str, created: int, question: Question, body: ChatBody) -> None:
        self._id = f"chatcmpl-{id_}"
        self._created = created
        self._question = question
        self._logprobs = bool(body.logprobs)
        self.with_usage = bool(body.stream_options and body.stream_options.include_usage)

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


def _turn(message: Message, at: int) -> Turn:
    where = f"messages[{at}]"
    if message.role in {"tool", "function"}:
        raise refused(f"{where}.role", f"Messages of the role {message.role} are not supported.")
    try:
        refuse_unsupported(message, _IN_MESSAGE)
    except Failure as failure:
        raise refused(f"{where}.{failure.param}", failure.message, failure.code) from None
    role = "system" if message.role == "developer" else message.role
    return Turn(role=role, content=_text(message.content, f"{where}.content"))


def _text(content: str | list[Part] | None, where: str) -> str:
    if content is None:
        raise refused(where, f"{where}: a text is required.")
    if isinstance(content, str):
        return content
    for at, part in enumerate(content):
        if part.type != "text" or part.text is None:
            raise refused(f"{where}[{at}]", f"{where}[{at}]: only parts of text are supported.")
    return "".join(part.text or "" for part in content)


def _logprob(token: Token) -> TokenLogprob:
    top = [TopLogprob(text, logprob, list(raw)) for text, logprob, raw in token.top]
    return TokenLogprob(token.token, token.logprob, list(token.bytes), top)
