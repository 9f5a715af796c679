"""Where every message lives: the subject grammar, frozen from the first event on.

A token is `[A-Za-z0-9_-]{1,64}`; it never holds a dot, a wildcard or white space. Ids are the canonical
lower-case text of a UUID. Names are for people and never part of a subject.
"""

import re
from typing import Annotated, Final, Literal, get_args
from uuid import UUID, uuid5

from pydantic import Field

Aggregate = Literal[
    "dataset",
    "job",
    "model",
    "model_version",
    "evaluation",
    "access",
    "agent",
    "queue",
    "dead_letter",
    "link",
    "webhook",
    "job_log",
    "person",
]
AGGREGATES: Final[tuple[Aggregate, ...]] = get_args(Aggregate)

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
NAME: Final = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
Name = Annotated[str, Field(pattern=f"^{NAME}$")]

# A message's header: where it says "0", the server takes none if its subject holds one already.
ONLY_ONE: Final = "Nats-Expected-Last-Subject-Sequence"

_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER: Final = re.compile(r"[^A-Za-z0-9_-]")

# The namespace of ids that are derived from names (uuid5); changing it would orphan every name.
NAMES: Final = UUID("6f1d9f0e-7d0a-5c43-9b53-2f6b0f1e7a11")

GATEWAY_SOURCE: Final = "gateway"
OPERATOR_SOURCE: Final = "operator"  # whoever owns the data directory
REACTION_SOURCE: Final = "reaction"
DELIVERY_SOURCE: Final = "delivery"  # what tells webhooks; it may only disable one
SERVING_QUEUE: Final = "infer"  # the queue group of agents, each of which can answer any request


def token(value: str) -> str:
    """Return ``value`` if it may stand as one subject token.

    Raises:
        ValueError: It may not.
    """
    if not TOKEN.match(value):
        raise ValueError(f"{value!r} is not a subject token: use 1-64 of A-Z a-z 0-9 _ -")
    return value


def derived_id(*parts: str) -> UUID:
    """Id of the thing that these names make unique: workspace first, then kind, then name."""
    return uuid5(NAMES, "\x1f".join(parts))


def event_subject(workspace: str, aggregate: Aggregate, aggregate_id: UUID) -> str:
    return f"events.{token(workspace)}.{aggregate}.{aggregate_id}"


def feed_subject(workspace: str, aggregate: str, event_type: str, aggregate_id: str) -> str:
    """Where subscribers find an event; what has no type of its own is ``unknown``."""
    return f"feed.{workspace}.{aggregate}.{event_token(event_type)}.{aggregate_id}"


def event_token(event_type: str) -> str:
    """`JobSucceeded` as a subject has it: `job_succeeded`."""
    words = _OTHER.sub("_", _WORD.sub("_", event_type)).lower()
    return words[:64] or "unknown"


def command_subject(source: str, workspace: str, aggregate: Aggregate, aggregate_id: UUID) -> str:
    return f"commands.{token(source)}.{token(workspace)}.{aggregate}.{aggregate_id}"


def telemetry_subject(
    workspace: str, kind: Literal["log", "metrics"], aggregate_id: UUID, attempt: int
) -> str:
    """Attempt 0 is what did not come from an attempt: lines posted by people or other systems."""
    return f"telemetry.{token(workspace)}.{kind}.{aggregate_id}.{attempt}"


def work_subject(agent_id: str) -> str:
    return f"work.{token(agent_id)}"


def presence_subject(agent_id: str) -> str:
    return f"presence.{token(agent_id)}"


def inference_subject(workspace: str, model_id: UUID) -> str:
    return f"infer.{token(workspace)}.{model_id}"


def control_subject(workspace: str, request_id: str) -> str:
    """Where whoever asked for text says that it still listens, or no longer does."""
    return f"control.{token(workspace)}.{token(request_id)}"


def serving_subject(workspace: str) -> str:
    """Where an agent asks what is in service."""
    return f"serving.{token(workspace)}"


def ticket_subject(workspace: str, agent_id: str) -> str:
    """Where an agent on another machine asks whether it may read or bring a blob."""
    return f"tickets.{token(workspace)}.{token(agent_id)}"


def source_of(subject: str) -> str:
    """Who sent a command: the token that the sender's own permission pins."""
    return subject.split(".")[1]
