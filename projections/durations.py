"""How long works take, as far as those that are over tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from domain.queues.state import Work


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds by method."""

    train: Mapping[str, float]
    evaluate: Mapping[str, float]

    def of(self, work: Work) -> float | None:
        return (self.train if work.kind == "train" else self.evaluate).get(work.method)


def typical(found: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The median of each method, which one run that took a week does not move."""
    seconds: dict[str, list[float]] = {}
    for method, took in found:
        if took is not None:
            seconds.setdefault(method, []).append(float(took))
    return {method: median(times) for method, times in seconds.items()}
