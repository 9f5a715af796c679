"""What the projections count for Prometheus; the label is the projection's name."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)  # of a batch

FIGURES: Final = CollectorRegistry()
PROJECTED: Final = Counter(
    "finetrail_projected_messages",
    "Messages that have become rows, or were seen to become none.",
    ("projection",),
    registry=FIGURES,
)
BATCH_SECONDS: Final = Histogram(
    "finetrail_projection_batch_seconds",
    "Time to write a batch's rows and its checkpoint.",
    ("projection",),
    buckets=BUCKETS_S,
    registry=FIGURES,
)
CHECKPOINT: Final = Gauge(
    "finetrail_projection_sequence",
    "Position in the stream up to which rows are written.",
    ("projection",),
    registry=FIGURES,
)
BEHIND: Final = Gauge(
    "finetrail_projection_behind_messages",
    "Messages that the stream held behind the last one written, when that was delivered.",
    ("projection",),
    registry=FIGURES,
)
LAG_SECONDS: Final = Gauge(
    "finetrail_projection_lag_seconds",
    "Age of the last message written, when it was written.",
    ("projection",),
    registry=FIGURES,
)
RUNNING: Final = Gauge(
    "finetrail_projection_running",
    "1 while messages become rows; 0 while it waits, stands by, or has stopped.",
    ("projection",),
    registry=FIGURES,
)
HEAD_AGE_SECONDS: Final = Gauge(
    "finetrail_audit_head_age_seconds",
    "Time since the log's chain was last signed; grows while nothing happens.",
    registry=FIGURES,
)
UNSIGNED: Final = Gauge(
    "finetrail_audit_unsigned_events",
    "Events behind the last signed head, which are not proven yet.",
    registry=FIGURES,
)
PUBLISHED: Final = Gauge(
    "finetrail_audit_heads_kept",
    "1 while every signed head is in this place outside of the database, 0 when it cannot be put there.",
    ("place",),
    registry=FIGURES,
)
PARKED: Final = Gauge(
    "finetrail_projection_view_parked",
    "1 while a view stands still before a message that cannot be read or written.",
    ("projection", "view"),
    registry=FIGURES,
)
