"""How an answer ended and what it cost, in OpenAI's words."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from domain.inference import End

FinishReason = Literal["stop", "length"]


class Usage(msgspec.Struct):
    """Tokens; a prompt counts once, however many answers it was given."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage_of(ends: Sequence[End], choices: int) -> Usage:
    """Sum up the ends in the order of the requests, ``choices`` of which share a prompt."""
    prompt = sum(end.prompt_tokens for end in ends[::choices])
    completion = sum(end.completion_tokens for end in ends)
    return Usage(prompt, completion, prompt + completion)


def finish_reason(end: End) -> FinishReason:
    """An answer that ran out of time was cut off like one that ran out of tokens."""
    return "stop" if end.reason == "stop" else "length"
