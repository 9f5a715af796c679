"""The two projections: which views move together, and how a message is read for them.

One for the log and one for telemetry. All views of the log move in one transaction, so a reader sees
them at one position: a job that names its model version finds that version. Telemetry has a stream
and sequences of its own, is a hundred times as much, and may be late without anybody waiting for it.
No table is written by both.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic

from domain.catalog import EVENTS
from domain.telemetry import MetricsLogged
from projections import (
    access_keys,
    agents,
    datasets,
    evaluations,
    jobs,
    metrics,
    model_versions,
    models,
    people,
    queue_ledger,
    timeline,
    webhooks,
    work_items,
)
from projections.metrics import StepRow
from projections.ports import Message
from projections.positions import METRICS, REGISTRY
from projections.reading import event_type, read_event
from projections.view import M, View

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Projection(Generic[M]):
    name: str
    views: tuple[View[M, Any], ...]
    type_of: Callable[[Message], str]  # told without reading it
    read: Callable[[Message], Sequence[M]]
    # Raise it when a view gives other rows than before from the same messages: all is replayed.
    revision: int
    # What this build can read. A build that can read more replays too, for what was passed over.
    reads: tuple[str, ...]
    outlives_log: bool = False  # the stream forgets by age and size; rows made from it stay


def read_steps(message: Message) -> Sequence[StepRow]:
    """Read step metrics; what cannot be read is passed over, for any agent may have sent it."""
    try:
        return metrics.decode_steps(message.subject, message.sequence, message.data)
    except ValueError as error:
        _log.warning("telemetry %d on %s: %s", message.sequence, message.subject, error)
        return []


registry: Final = Projection(
    name=REGISTRY,
    views=(
        datasets.VIEW,
        jobs.VIEW,
        jobs.EPOCHS,
        models.VIEW,
        model_versions.VIEW,
        evaluations.VIEW,
        evaluations.EXAMPLES,
        agents.VIEW,
        work_items.VIEW,
        queue_ledger.VIEW,
        access_keys.VIEW,
        people.VIEW,
        webhooks.VIEW,
        timeline.VIEW,
        timeline.BLOCKS,
    ),
    type_of=event_type,
    read=read_event,
    revision=2,  # rows hold which base model it was, and what of the data was supervised
    reads=tuple(sorted(f"{name} {class_.schema_version}" for name, (_, class_) in EVENTS.items())),
)

step_metrics: Final = Projection(
    name=METRICS,
    views=(metrics.STEPS, metrics.PROGRESS),
    type_of=lambda _: MetricsLogged.__name__,
    read=read_steps,
    revision=1,
    reads=(),
    outlives_log=True,
)
