"""What is said about running work but decides nothing: log lines and step metrics."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LEVELS: tuple[Level, ...] = ("DEBUG", "INFO", "WARNING", "ERROR")


def _is_one_in_utc(time: datetime) -> datetime:
    try:
        time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"the time {time} is none in UTC") from error
    return time


def _is_storable(number: int) -> int:
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} has more than 64 bits")
    return number


# What no table takes and no page can show: any agent may say it.
Time = Annotated[datetime, AfterValidator(_is_one_in_utc)]
Count = Annotated[int, AfterValidator(_is_storable)]


class LogLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    time: Time
    level: Level = "INFO"
    message: str = Field(max_length=8192)
    source: Literal["worker", "kernel", "system"] = "worker"


class LogEmitted(BaseModel):
    """Several lines a message: they are collected for a moment before they are sent."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: ClassVar[str] = "LogEmitted"

    lines: tuple[LogLine, ...]


class StepMetrics(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    step: Count
    epoch: float
    loss: float  # mean cross-entropy, nats per row
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    eta_s: float
    time: Time


class MetricsLogged(BaseModel):
    """One training step or several, in order."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    type: ClassVar[str] = "MetricsLogged"

    steps: tuple[StepMetrics, ...]
