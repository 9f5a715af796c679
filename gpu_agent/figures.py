"""What an agent counts for Prometheus; labels are methods, kinds and outcomes, never ids."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

FIGURES: Final = CollectorRegistry()
SLOTS: Final = Gauge("finetrail_agent_slots", "Attempts that may run at once.", registry=FIGURES)
HELD: Final = Gauge(
    "finetrail_agent_attempts_held",
    "Attempts that this agent holds; those beyond its slots wait for one.",
    registry=FIGURES,
)
ATTEMPTS: Final = Counter(
    "finetrail_agent_attempts",
    "Attempts that have ended: finished, failed, released (to be tried again), stopped, fenced "
    "(the work was no longer this agent's), unclaimed, cancelled (the agent ended first).",
    ("kind", "outcome"),
    registry=FIGURES,
)
STEPS: Final = Counter(
    "finetrail_training_steps", "Optimizer steps done.", ("method",), registry=FIGURES
)
TOKENS: Final = Counter(
    "finetrail_training_tokens", "Tokens read by those steps.", ("method",), registry=FIGURES
)
SERVING_STARTS: Final = Counter(
    "finetrail_serving_starts", "Starts of the process that serves models.", registry=FIGURES
)
SERVING_DEATHS: Final = Counter(
    "finetrail_serving_deaths", "Ends of that process that nobody asked for.", registry=FIGURES
)
PREDICTIONS: Final = Counter(
    "finetrail_predictions", "Answered requests for predictions.", registry=FIGURES
)
GENERATIONS: Final = Counter(
    "finetrail_generations", "Ended texts, by why they ended.", ("reason",), registry=FIGURES
)
GENERATED_TOKENS: Final = Counter(
    "finetrail_generated_tokens", "Tokens of those texts.", registry=FIGURES
)
