"""Every message by name: from a type and its JSON back to the class, and to the aggregate it belongs to."""

from types import MappingProxyType
from typing import Any, Final, get_args

from domain.access.commands import AccessCommand
from domain.access.events import AccessEvent
from domain.agents.commands import AgentCommand
from domain.agents.events import AgentEvent
from domain.datasets.commands import DatasetCommand
from domain.datasets.events import DatasetEvent
from domain.dead_letters.commands import DeadLetterCommand
from domain.dead_letters.events import DeadLetterEvent
from domain.evaluations.commands import EvaluationCommand
from domain.evaluations.events import EvaluationEvent
from domain.job_logs.commands import JobLogCommand
from domain.job_logs.events import JobLogEvent
from domain.jobs.commands import JobCommand
from domain.jobs.events import JobEvent
from domain.links.commands import LinkCommand
from domain.links.events import LinkEvent
from domain.messages import Command, Event
from domain.model_versions.commands import ModelVersionCommand
from domain.model_versions.events import ModelVersionEvent
from domain.models.commands import ModelCommand
from domain.models.events import ModelEvent
from domain.people.commands import PersonCommand
from domain.people.events import PersonEvent
from domain.queues.commands import QueueCommand
from domain.queues.events import QueueEvent
from domain.subjects import Aggregate
from domain.upcasting import Upcasts, upcast
from domain.webhooks.commands import WebhookCommand
from domain.webhooks.events import WebhookEvent

# Those of every aggregate that has an `upcast.py`, which it has from the first event on whose shape
# changed: `{**jobs.upcast.UPCASTS, …}`.
UPCASTS: Final[Upcasts] = MappingProxyType({})

_COMMANDS: Final[dict[Aggregate, Any]] = {
    "dataset": DatasetCommand,
    "job": JobCommand,
    "model": ModelCommand,
    "model_version": ModelVersionCommand,
    "evaluation": EvaluationCommand,
    "access": AccessCommand,
    "agent": AgentCommand,
    "queue": QueueCommand,
    "dead_letter": DeadLetterCommand,
    "link": LinkCommand,
    "webhook": WebhookCommand,
    "job_log": JobLogCommand,
    "person": PersonCommand,
}
_EVENTS: Final[dict[Aggregate, Any]] = {
    "dataset": DatasetEvent,
    "job": JobEvent,
    "model": ModelEvent,
    "model_version": ModelVersionEvent,
    "evaluation": EvaluationEvent,
    "access": AccessEvent,
    "agent": AgentEvent,
    "queue": QueueEvent,
    "dead_letter": DeadLetterEvent,
    "link": LinkEvent,
    "webhook": WebhookEvent,
    "job_log": JobLogEvent,
    "person": PersonEvent,
}


def _by_name(unions: dict[Aggregate, Any]) -> dict[str, tuple[Aggregate, Any]]:
    return {
        class_.__name__: (aggregate, class_)
        for aggregate, union in unions.items()
        for class_ in get_args(union) or (union,)
    }


COMMANDS: Final = MappingProxyType(_by_name(_COMMANDS))
EVENTS: Final = MappingProxyType(_by_name(_EVENTS))


class UnknownType(LookupError):
    """No class of this build has that name: the writer is newer, or it is no message of ours."""


def aggregate_of(message: Command | Event) -> Aggregate:
    catalog = COMMANDS if isinstance(message, Command) else EVENTS
    return catalog[type(message).__name__][0]


def decode_command(type_: str, data: bytes) -> Command:
    """Read a command.

    Raises:
        UnknownType: There is no such command.
        pydantic.ValidationError: The body does not fit; every field that is wrong is named.
    """
    command: Command = _class(COMMANDS, type_).model_validate_json(data)
    return command


def decode_event(type_: str, schema_version: int, data: bytes) -> Event:
    """Read an event in today's shape, whatever version it was written in.

    Raises:
        UnknownType: A newer writer's event, or a version from the future.
        ValueError: The payload is damaged, or of a version that there never was.
    """
    class_ = _class(EVENTS, type_)
    current: int = class_.schema_version
    if schema_version > current:
        raise UnknownType(f"{type_} version {schema_version} is newer than {current}")
    if schema_version != current:
        data = upcast(type_, schema_version, current, data, UPCASTS)
    # Parts that events share with commands forbid what they do not know; the writer may be newer.
    event: Event = class_.model_validate_json(data, extra="ignore")
    return event


def _class(catalog: MappingProxyType[str, tuple[Aggregate, Any]], type_: str) -> Any:
    try:
        return catalog[type_][1]
    except KeyError:
        raise UnknownType(f"{type_!r} is not a message of this build") from None
