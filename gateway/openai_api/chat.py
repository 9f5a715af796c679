"""What ``POST /v1/chat/completions`` takes, and the question that it becomes."""

from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec

from domain.inference import GenerateRequest, Turn
from gateway.openai_api.errors import refused
from gateway.openai_api.generating import Question
from gateway.openai_api.models import Chosen
from gateway.openai_api.sampling import (
    HARMLESS,
    GeneratingBody,
    Ignored,
    MaxTokens,
    Unsupported,
    refuse_stream_options,
    refuse_unsupported,
    sampling_of,
    seeded,
)

_UNSUPPORTED: Final = MappingProxyType[str, tuple[object, ...]](
    {
        **HARMLESS,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
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


class ChatBody(GeneratingBody, forbid_unknown_fields=True, kw_only=True):
    """A conversation that the model is to go on with."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
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
    service_tier: Unsupported = None
    verbosity: Unsupported = None
    reasoning_effort: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    moderation: Unsupported = None
    web_search_options: Unsupported = None


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
        body,
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


def _turn(message: Message, at: int) -> Turn:
    where = f"messages[{at}]"
    if message.role in {"tool", "function"}:
        raise refused(f"{where}.role", f"{where}.role: {message.role} is not supported here.")
    refuse_unsupported(message, _IN_MESSAGE, f"{where}.")
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
