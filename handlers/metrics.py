"""What the handlers count for Prometheus; labels are types and consumers, never ids."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# A decision loads a stream and appends to it; a reaction may read a large dataset.
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0)

REGISTRY: Final = CollectorRegistry()
COMMANDS: Final = Counter(
    "finetrail_commands",
    "Commands by what became of them: recorded, unchanged, rejected, or error.",
    ("command", "outcome"),
    registry=REGISTRY,
)
COMMAND_SECONDS: Final = Histogram(
    "finetrail_command_seconds",
    "Time from taking a command up to its outcome.",
    ("command",),
    buckets=BUCKETS_S,
    registry=REGISTRY,
)
REACTIONS: Final = Counter(
    "finetrail_reactions",
    "Events that were reacted to, by what became of it: done, or error.",
    ("event", "outcome"),
    registry=REGISTRY,
)
REACTION_SECONDS: Final = Histogram(
    "finetrail_reaction_seconds",
    "Time that a reaction to an event took.",
    ("event",),
    buckets=BUCKETS_S,
    registry=REGISTRY,
)
REDELIVERIES: Final = Counter(
    "finetrail_redeliveries",
    "Messages that were delivered once more.",
    ("consumer",),
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Counter(
    "finetrail_dead_letters",
    "Messages that could not be handled and were put aside.",
    ("kind",),
    registry=REGISTRY,
)
WAITING: Final = Gauge(
    "finetrail_consumer_waiting",
    "Messages that waited behind the one that was delivered last.",
    ("consumer",),
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS: Final = Counter(
    "finetrail_webhook_attempts",
    "Attempts to deliver to webhooks by what became of them: delivered, failed, or dead.",
    ("outcome",),
    registry=REGISTRY,
)
