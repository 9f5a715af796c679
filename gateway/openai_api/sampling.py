"""Parameters that both forms of completion share: what they mean, and those that are refused."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from domain.inference import Sampling
from gateway.openai_api.errors import refused

MOST_CHOICES: Final = 8  # each takes one of an agent's sixteen places
MOST_STOPS: Final = 4
MIN_TOP_P: Final = 1e-6  # 0 means: only the most likely token

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopP = Annotated[float, msgspec.Meta(ge=0, le=1)]
TopK = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1, description="0 or -1: all tokens.")]
Choices = Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)]
MaxTokens = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]  # room for one more a choice
Stop = (
    Annotated[str, msgspec.Meta(min_length=1)]
    | Annotated[list[str], msgspec.Meta(max_length=MOST_STOPS)]
)
Unsupported = Annotated[Any, msgspec.Meta(description="Not supported; refused unless it is null.")]
Ignored = Annotated[Any, msgspec.Meta(description="Taken and not used.")]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class GeneratingBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both routes are asked with."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    max_tokens: MaxTokens | None = None
    user: Ignored = None
    logit_bias: Unsupported = None
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None


# Of the unsupported ones: the values that ask for what is done anyway.
HARMLESS: Final = MappingProxyType[str, tuple[object, ...]](
    {"logit_bias": ({},), "frequency_penalty": (0,), "presence_penalty": (0,)}
)


def sampling_of(
    body: GeneratingBody, *, max_tokens: int | None, top_logprobs: int | None
) -> Sampling:
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    if "" in stops:
        raise refused("stop", "stop: an empty text would end every answer at once.")
    return Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else max(body.top_p, MIN_TOP_P),
        top_k=body.top_k if body.top_k and body.top_k > 0 else None,
        stop=tuple(stops),
        max_tokens=max_tokens,
        top_logprobs=top_logprobs,
    )


def seeded(sampling: Sampling, seed: int | None, choice: int) -> Sampling:
    """Of the choices of one prompt each has a seed of its own."""
    return sampling.model_copy(update={"seed": None if seed is None else seed + choice})


def refuse_unsupported(
    body: msgspec.Struct, harmless: Mapping[str, tuple[object, ...]], where: str = ""
) -> None:
    """Refuse parameters that would change the answer if they did anything here.

    Args:
        harmless: by parameter, the values that ask for what is done anyway.
        where: the path to the body, with a dot at its end.

    Raises:
        Failure: One is there; its ``param`` names it.
    """
    for name, values in harmless.items():
        value = getattr(body, name)
        if value is not None and value not in values:
            but = f" but {msgspec.json.encode(values[0]).decode()}" if values else ""
            said = f"{where}{name}: nothing{but} is supported here."
            raise refused(f"{where}{name}", said, "unsupported_parameter")


def refuse_stream_options(options: StreamOptions | None, *, stream: bool | None) -> None:
    if options is not None and not stream:
        raise refused("stream_options", "stream_options is only allowed when stream is true.")


def wants_usage(options: StreamOptions | None) -> bool:
    return bool(options and options.include_usage)
