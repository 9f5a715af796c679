"""What a demo came to: as tables for a person, and as one object for a program."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from finetrail import demo_chat
from finetrail.cli.comparison import comparison
from finetrail.cli.exits import Failed
from finetrail.client import Evaluation, EvaluationSummary, Event, Job, Prediction, Version
from finetrail.render import Table, clean, facts, percent, seconds, size

LAST_EVENTS: Final = 8


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it; a classifier has predicted, a language model has talked."""

    dataset_id: str
    job: Job
    version: Version
    evaluation: Evaluation
    predictions: list[tuple[str, Prediction]]
    talk: demo_chat.Talk | None
    archive: list[tuple[str, int]]
    zip_bytes: int
    events: list[Event]


@dataclass(slots=True)
class Clock:
    """Says each step as it is done, and keeps how long it took."""

    stream: TextIO
    started: float = field(default_factory=time.monotonic)
    spent: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def tell(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def done(self, phase: str, said: str) -> None:
        now = time.monotonic()
        self.spent[phase] = self.spent.get(phase, 0.0) + now - self._since
        self._since = now
        self.tell(f"{now - self.started:6.1f} s  {clean(said)}\n")

    @property
    def total(self) -> float:
        return time.monotonic() - self.started


def as_object(result: Result, clock: Clock) -> dict[str, Any]:
    """The one object that `--json` prints as its last line."""
    summary = result.evaluation.summary
    if summary is None:
        raise Failed("there is no evaluation")
    spent = clock.spent
    return {
        "dataset_id": result.dataset_id,
        "job_id": result.job.id,
        "model": result.version.model,
        "version": result.version.number,
        "evaluation": _figures(summary),
        **(demo_chat.as_object(result.talk) if result.talk else {}),
        "zip_bytes": result.zip_bytes,
        "events": len(result.events),
        "seconds": {
            "setup": round(spent["servers"] + spent["upload"], 2),
            "train": round(spent["train"], 2),
            "evaluate": round(spent["evaluate"], 2),
            "total": round(clock.total, 2),
        },
    }


def _figures(summary: EvaluationSummary) -> dict[str, Any]:
    base, tuned = summary.base, summary.fine_tuned
    concluded = {"p_value": summary.p_value, "ci95": list(summary.ci95)}
    if not summary.of_language_model:
        untrained = summary.untrained
        return {
            "base": {"accuracy": base.accuracy, "f1": base.f1},
            "untrained": {"accuracy": untrained.accuracy} if untrained else None,
            "fine_tuned": {"accuracy": tuned.accuracy, "f1": tuned.f1},
            **concluded,
        }
    shown = {"accuracy", "f1", "exact_match", "perplexity", "bits_per_byte"}
    return {
        "rows": summary.rows,
        "metric": summary.metric,
        "base": base.model_dump(include=shown),
        "fine_tuned": tuned.model_dump(include=shown),
        **concluded,
        "verdict": summary.verdict,
    }


def summary(result: Result, clock: Clock) -> list[Table]:
    training = result.version.training
    tokens, spent = training.get("tokens"), training.get("seconds")
    speed = f"{tokens / spent:,.0f} tokens/s over {seconds(spent)}" if tokens and spent else ""
    figures, what = result.evaluation.summary, f"{result.version.model} {result.version.number}"
    return [
        *([comparison(figures, what)] if figures else []),
        *(demo_chat.tables(result.talk) if result.talk else [_predicted(result)]),
        Table((), [(name, size(count)) for name, count in result.archive], title="In the ZIP file"),
        Table(
            ("sequence", "event", "by"),
            [(str(each.sequence), each.type, each.actor) for each in result.events[-LAST_EVENTS:]],
            title=f"The last of {len(result.events)} events",
        ),
        facts(
            [
                ("speed", speed),
                *((phase, seconds(span)) for phase, span in clock.spent.items()),
                ("total", seconds(clock.total)),
            ],
            title="Where the time went",
        ),
    ]


def _predicted(result: Result) -> Table:
    return Table(
        ("label", "confidence", "text"),
        [(each.label, percent(each.confidence), text) for text, each in result.predictions],
        title="Predictions",
    )


def what_next(result: Result, train: Path, test: Path | None) -> str:
    model = result.version.model
    held_out = f" --test {test}" if test else ""
    return f"""
Do it yourself, in a stack that stays:
  finetrail up
  finetrail train {train}{held_out} --model {model} --follow
  finetrail activate {model} 1
  finetrail chat {model}
or point any client of OpenAI's API at http://127.0.0.1:8420/v1, with a key of yours.
"""
