"""What an administrator decides about the queue: shares, quotas, and how long is too long to wait."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PATIENCE = 100  # starts; a fleet that starts one work a minute makes nobody wait for two hours
MEMORY = 50  # starts; long enough to even out an afternoon, short enough to forget last month
MAX_USERS = 500  # so that a policy fits into one event


class UserPolicy(BaseModel):
    """What one user may have; a limit of null is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: int = Field(default=1, ge=1, le=1000)  # twice the weight, twice the starts
    running: Annotated[int, Field(ge=0)] | None = None  # trainings and evaluations at once
    queued: Annotated[int, Field(ge=0)] | None = None  # trainings that wait at once


class QueuePolicy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # A work that has seen so many others start while it waited goes first.
    patience: int = Field(default=PATIENCE, ge=1, le=100_000)
    memory: int = Field(default=MEMORY, ge=1, le=100_000)  # after so many starts, each counts half
    evaluations_first: bool = True  # among works of one priority
    everyone: UserPolicy = UserPolicy()
    users: dict[str, UserPolicy] = Field(default_factory=dict, max_length=MAX_USERS)  # by actor

    def of(self, user: str) -> UserPolicy:
        return self.users.get(user, self.everyone)


BUILT_IN = QueuePolicy()  # in force until somebody sets another
