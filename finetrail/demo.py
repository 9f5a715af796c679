"""`finetrail demo`: the main job once, on a private stack, through the HTTP API alone."""

import asyncio
import re
import sys
import time
import zipfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO

import finetrail
from finetrail.cli import following, session
from finetrail.cli.comparison import comparison
from finetrail.cli.exits import Failed, UsageProblem
from finetrail.client import (
    Client,
    Evaluation,
    EvaluationSummary,
    Event,
    Job,
    Prediction,
    Version,
)
from finetrail.owner import issue_key
from finetrail.private_stack import Interrupted, interruptible, private_folder, private_stack
from finetrail.render import Table, clean, facts, percent, seconds, size, write_json, write_table

ASKED: Final = 3  # texts to predict
LAST_EVENTS: Final = 8
ALL_EVENTS: Final = 100_000  # of a demo: some dozens
LOG_LINES: Final = 15  # of each process, when something went wrong


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run it on; the shipped example if nothing is named."""

    data: Path | None = None
    test: Path | None = None
    text: str | None = None
    label: str | None = None
    epochs: int | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    dataset_id: str
    job: Job
    version: Version
    evaluation: Evaluation
    predictions: list[tuple[str, Prediction]]
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

    def done(self, phase: str, said: str) -> None:
        now = time.monotonic()
        self.spent[phase] = self.spent.get(phase, 0.0) + now - self._since
        self._since = now
        self.stream.write(f"{now - self.started:6.1f} s  {clean(said)}\n")
        self.stream.flush()

    @property
    def total(self) -> float:
        return time.monotonic() - self.started


def run_demo(plan: Plan, *, as_json: bool) -> int:
    """Return the exit code: 0 only if the whole path worked and nothing is left running."""
    train, test = _files(plan)
    clock = Clock(sys.stderr)
    clock.stream.write(f"Training on {train}\n")
    with interruptible():
        try:
            with private_folder(keep=plan.keep) as folder:
                result = _on_private_stack(plan, train, test, folder, clock)
            clock.done("stop", "everything is stopped" + (f"; kept {folder}" if plan.keep else ""))
        except Interrupted as stopped:
            clock.stream.write(f"stopped by {stopped}; nothing is left running\n")
            return 128 + stopped.signum
    for table in _summary(result, clock):
        write_table(table, sys.stderr if as_json else sys.stdout)
    if as_json:
        write_json(as_object(result, clock))
    return 0


def _on_private_stack(
    plan: Plan, train: Path, test: Path | None, folder: Path, clock: Clock
) -> Result:
    data = folder / "data"
    try:
        with private_stack(data) as settings:
            key = asyncio.run(issue_key(settings, name="demo", role="admin"))
            with Client(settings.gateway_url, key, patience_s=30) as client:
                session.wait_until_accepted(client)
                clock.done("servers", f"servers are up at {client.url}")
                return _main_job(plan, train, test, client, folder, clock)
    except Exception:
        _show_logs(data / "logs", clock.stream)
        raise


def _main_job(
    plan: Plan, train: Path, test: Path | None, client: Client, folder: Path, clock: Clock
) -> Result:
    upload = partial(client.upload_dataset, text_column=plan.text, label_column=plan.label)
    dataset = upload(train)
    held_out = upload(test) if test else None
    clock.done("upload", f"uploaded {dataset.rows} rows with {len(dataset.labels)} labels")

    job = client.submit_job(
        model_name(train),
        dataset.id,
        test_dataset_id=held_out.id if held_out else None,
        hyperparameters={"epochs": plan.epochs} if plan.epochs else None,
    )
    job = following.follow_job(client, job.id)
    clock.done("train", f"job {job.id} {job.status}")
    version, evaluation = following.result_of(client, job)
    if evaluation is None or evaluation.summary is None:
        raise Failed(f"version {version.number} of {version.model} was not evaluated")
    scores = evaluation.summary
    clock.done(
        "evaluate",
        f"evaluated on {scores.rows} held-out rows: {percent(scores.fine_tuned.accuracy)} right",
    )

    model = client.activate(version.model, version.number)
    in_service = model.active.number if model.active else None
    clock.done("serve", f"version {in_service} of {model.name} is in service")
    texts = _texts_to_ask(client, evaluation)
    predictions = list(zip(texts, client.predict(model.name, texts), strict=True))
    clock.done("serve", f"predicted {len(predictions)} texts")
    archive = client.download(model.name, version.number, folder / f"{model.name}.zip")
    with zipfile.ZipFile(archive) as opened:
        content = [(each.filename, each.file_size) for each in opened.infolist()]
    zip_bytes = archive.stat().st_size
    clock.done("download", f"downloaded {archive.name}, {size(zip_bytes)}")
    events = client.events(after=0, limit=ALL_EVENTS)
    return Result(dataset.id, job, version, evaluation, predictions, content, zip_bytes, events)


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


def example_file() -> Path:
    """The shipped example: beside the packages in a checkout, inside this one when installed."""
    package = Path(finetrail.__file__).parent
    for folder in (package.parent / "examples", package / "examples"):
        if (folder / "intents.csv").is_file():
            return folder / "intents.csv"
    raise UsageProblem("the shipped example is not installed; name a file by --data")


def model_name(file: Path) -> str:
    """A name that a model may have, made of a file's."""
    name = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower())[:60].strip("._-")
    return name or "demo"


def _files(plan: Plan) -> tuple[Path, Path | None]:
    """Absolute, because the demo works in another folder."""
    if plan.test and not plan.data:
        raise UsageProblem("--test needs --data: held-out rows belong to rows that were trained on")
    train = plan.data or example_file()
    for file in filter(None, (train, plan.test)):
        if not file.is_file():
            raise UsageProblem(f"{file} is not a file")
    return train.absolute(), plan.test.absolute() if plan.test else None


def _texts_to_ask(client: Client, evaluation: Evaluation) -> list[str]:
    """Texts that were not trained on, with different labels where there are some."""
    examples = client.evaluation_examples(evaluation.id)
    by_label = {each.expected: each.text for each in examples}
    chosen = list(by_label.values()) + [each.text for each in examples]
    return list(dict.fromkeys(chosen))[:ASKED]


def _summary(result: Result, clock: Clock) -> list[Table]:
    training = result.version.training
    tokens, spent = training.get("tokens"), training.get("seconds")
    speed = f"{tokens / spent:,.0f} tokens/s over {seconds(spent)}" if tokens and spent else ""
    summary, what = result.evaluation.summary, f"{result.version.model} {result.version.number}"
    return [
        *([comparison(summary, what)] if summary else []),
        Table(
            ("label", "confidence", "text"),
            [(each.label, percent(each.confidence), text) for text, each in result.predictions],
            title="Predictions",
        ),
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


def _show_logs(folder: Path, stream: TextIO) -> None:
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        stream.write(f"--- {log.name}\n")
        stream.writelines(clean(line) + "\n" for line in lines)
