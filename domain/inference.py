"""What is said between a gateway and the agent that generates text for it, over core NATS.

A request goes to ``infer.<workspace>.<model id>`` with a reply subject. The answers come there in
order: `Begun`, any number of `Piece`, and one `End` or `Refused`; pieces that are only signs of life
come before `Begun` too. Whoever asked says `keep` or `cancel` on ``control.<workspace>.<request id>``;
one that falls silent is taken for gone.
"""

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.jobs.spec import Method
from domain.work import Failed

KEEP_S: Final = 5.0  # between two signs of life, of either side
SILENCE_S: Final = 15.0  # after which the other side is gone
Control = Literal["keep", "cancel"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ServedModel(_Message):
    """Which weights answer; the same answer comes from any agent."""

    method: Method
    version_id: UUID | None  # None: the base model itself
    base_model: str
    base: BaseModelRecord | None = None
    adapter: tuple[FileEntry, ...] = ()  # paths relative to the adapter's folder
    labels: tuple[str, ...] = ()  # of a classifier
    max_length: int  # tokens; of a classifier's text


class InService(_Message):
    """The answer to ``serving.<workspace>``: what an agent keeps warm."""

    models: tuple[ServedModel, ...]


class Turn(_Message):
    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(_Message):
    temperature: float = Field(default=1.0, ge=0, le=2)  # 0: always the most likely token
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    stop: tuple[str, ...] = ()  # none of them is part of the answer
    seed: int | None = None  # None: another answer every time
    max_tokens: int | None = Field(default=None, ge=1)  # None: what the context leaves
    top_logprobs: int | None = Field(default=None, ge=0, le=20)  # None: no log-probabilities at all


class GenerateRequest(_Message):
    """Either ``messages``, which the model's chat template renders, or ``prompt`` as it stands."""

    kind: Literal["generate"] = "generate"
    request_id: str
    workspace: str
    served: ServedModel
    messages: tuple[Turn, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    deadline_s: float = 300.0  # from its arrival at the agent


class TokenLogprob(_Message):
    token: str
    logprob: float  # nats
    bytes: tuple[int, ...]
    top: tuple[
        tuple[str, float, tuple[int, ...]], ...
    ] = ()  # token, logprob, bytes; likeliest first


class Begun(_Message):
    kind: Literal["begun"] = "begun"
    request_id: str
    agent_id: str = ""
    prompt_tokens: int


class Piece(_Message):
    """Whole characters only; one without text or tokens is a sign of life."""

    kind: Literal["piece"] = "piece"
    request_id: str
    number: int  # from 0; a gap means that a message was lost
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class End(_Message):
    kind: Literal["end"] = "end"
    request_id: str
    reason: Literal["stop", "length", "cancelled", "deadline"]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    first_token_s: float | None


class Refused(_Message):
    """Before or in the middle; ``busy`` and other retryable codes may be tried again."""

    kind: Literal["refused"] = "refused"
    request_id: str
    error: Failed


GenerateReply = Annotated[Begun | Piece | End | Refused, Field(discriminator="kind")]
generate_reply: Final[TypeAdapter[Begun | Piece | End | Refused]] = TypeAdapter(GenerateReply)
