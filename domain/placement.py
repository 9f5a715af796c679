"""Where a piece of work may run and how soon: said with a job, and no part of what decides its result."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from domain.subjects import Name

DEFAULT_PRIORITY: Final = 50
DEFAULT_POOL: Final = "default"  # of an agent that names none

Priority = Annotated[int, Field(ge=0, le=100)]  # higher goes first
Pool = Name


class Needs(BaseModel):
    """What an agent must have, beside the method; what is left out does not matter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # "cpu", "gpu" (any but a CPU), or a part of the accelerator's name as "H100"
    accelerator: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    memory_bytes: Annotated[int, Field(ge=1)] | None = None  # of the accelerator


class Placement(BaseModel):
    """Who wants the work, how urgently, and where it may run."""

    model_config = ConfigDict(frozen=True)

    user: str = ""  # the actor who asked for it; empty where that was not recorded
    priority: Priority = DEFAULT_PRIORITY
    pool: Pool | None = None  # None: any
    needs: Needs = Needs()
