"""``POST /v1/completions``: text that goes on where the prompt ends, without a chat template."""

from collections.abc import Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec

from domain.inference import End, GenerateRequest, Piece
from domain.inference import TokenLogprob as Token
from gateway.openai_api.errors import refused
from gateway.openai_api.generating import Answer, Question
from gateway.openai_api.models import Chosen
from gateway.openai_api.sampling import (
    HARMLESS,
    MOST_CHOICES,
    GeneratingBody,
    Unsupported,
    refuse_stream_options,
    refuse_unsupported,
    sampling_of,
    seeded,
)
from gateway.openai_api.usage import FinishReason, Usage, finish_reason, usage_of

MAX_TOKENS: Final = 16  # what OpenAI gives on this route to those who do not say
_UNSUPPORTED: Final = MappingProxyType[str, tuple[object, ...]](
    {
        **HARMLESS,
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
    }
)


class CompletionBody(GeneratingBody, forbid_unknown_fields=True, kw_only=True):
    """One text to go on with, or several."""

    prompt: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)]
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    best_of: Unsupported = None
    echo: Unsupported = None
    suffix: Unsupported = None


class Logprobs(msgspec.Struct):
    """By token; `text_offset` counts characters from the beginning of the answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class Choice(msgspec.Struct):
    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(msgspec.Struct):
    """`model` is the version that answered."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: None = None


def completion_question(body: CompletionBody, chosen: Chosen, workspace: str, id_: str) -> Question:
    """What is asked of an agent.

    Raises:
        Failure: Something is asked for that is not supported, or makes no sense.
    """
    refuse_unsupported(body, _UNSUPPORTED)
    refuse_stream_options(body.stream_options, stream=body.stream)
    prompts, choices = _prompts(body.prompt), body.n or 1
    if len(prompts) * choices > MOST_CHOICES:
        raise refused("prompt", f"prompt: at most {MOST_CHOICES} answers a request, n for each.")
    sampling = sampling_of(
        body,
        max_tokens=body.max_tokens or MAX_TOKENS,
        top_logprobs=body.logprobs,
    )
    requests = [
        GenerateRequest(
            request_id=f"{id_}-{at * choices + choice}",
            workspace=workspace,
            served=chosen.served,
            prompt=prompt,
            sampling=seeded(sampling, body.seed, choice),
        )
        for at, prompt in enumerate(prompts)
        for choice in range(choices)
    ]
    return Question(chosen.root, chosen.inference_id, requests, choices)


class CompletionForm:
    """How answers are told to whoever asked over this route."""

    def __init__(
        self, id_: str, created: int, question: Question, *, logprobs: int | None, with_usage: bool
    ) -> None:
        self._id = f"cmpl-{id_}"
        self._created = created
        self._question = question
        self._logprobs = logprobs
        self._told = [0] * len(question.requests)  # characters, by answer
        self.with_usage = with_usage

    def whole(self, answers: Sequence[Answer]) -> Completion:
        choices = [
            Choice(
                index,
                answer.text,
                self._logprobs_of(answer.tokens, 0),
                finish_reason(answer.end),
            )
            for index, answer in enumerate(answers)
        ]
        usage = usage_of([answer.end for answer in answers], self._question.choices)
        return self._completion(choices, usage)

    def begun(self, index: int) -> bytes:  # noqa: ARG002 - this form has nothing to say yet
        return b""

    def piece(self, index: int, piece: Piece) -> bytes:
        logprobs = self._logprobs_of(piece.logprobs, self._told[index]) if piece.logprobs else None
        self._told[index] += len(piece.text)
        return self._chunk(Choice(index, piece.text, logprobs))

    def ended(self, index: int, end: End) -> bytes:
        return self._chunk(Choice(index, "", finish_reason=finish_reason(end)))

    def usage(self, ends: Sequence[End]) -> bytes:
        usage = usage_of(ends, self._question.choices)
        return msgspec.json.encode(self._completion([], usage))

    def _chunk(self, choice: Choice) -> bytes:
        usage = None if self.with_usage else msgspec.UNSET
        return msgspec.json.encode(self._completion([choice], usage))

    def _completion(
        self, choices: list[Choice], usage: Usage | msgspec.UnsetType | None
    ) -> Completion:
        return Completion(self._id, self._created, self._question.model, choices, usage)

    def _logprobs_of(self, tokens: Sequence[Token], begin: int) -> Logprobs | None:
        if self._logprobs is None:
            return None
        offsets = accumulate((len(token.token) for token in tokens), initial=begin)
        return Logprobs(
            [token.token for token in tokens],
            [token.logprob for token in tokens],
            [_top(token) for token in tokens] if self._logprobs else None,
            list(offsets)[: len(tokens)],
        )


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    texts = [text for text in prompt if isinstance(text, str)]
    if len(texts) < len(prompt):
        raise refused("prompt", "prompt: only texts are supported, no token ids.")
    return texts


def _top(token: Token) -> dict[str, float]:
    """The chosen token is always among them, as OpenAI has it."""
    return {text: logprob for text, logprob, _ in token.top} | {token.token: token.logprob}
