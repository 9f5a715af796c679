"""`finetrail demo`: the main job once, on a private stack, through the HTTP API alone."""

import asyncio
import re
import sys
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import finetrail
from finetrail import demo_chat
from finetrail.cli import following, session
from finetrail.cli.exits import Failed, UsageProblem
from finetrail.client import Client, Evaluation, Job
from finetrail.demo_results import Clock, Result, as_object, summary, what_next
from finetrail.owner import issue_key
from finetrail.private_stack import Interrupted, interruptible, private_folder, private_stack
from finetrail.render import clean, percent, size, write_json, write_table

ASKED: Final = 3  # texts to predict
ALL_EVENTS: Final = 100_000  # of a demo: some dozens
LOG_LINES: Final = 15  # of each process, when something went wrong
CHAT_PARTS: Final = ("", "_test", "_wordings")  # of the shipped conversations
TINY: Final = "finetrail/tiny"
MADE: Final = "made "  # how the line begins that says so, and how long it took


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run it on; the shipped example if nothing is named."""

    data: Path | None = None
    test: Path | None = None
    text: str | None = None
    label: str | None = None
    epochs: int | None = None
    chat: bool = False  # a language model
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Files:
    """Absolute, because the demo works in another folder."""

    train: Path
    test: Path | None = None
    wordings: Path | None = None  # prompts that are worded as none in the two others


def run_demo(plan: Plan, *, as_json: bool) -> int:
    """Return the exit code: 0 only if the whole path worked and nothing is left running."""
    files = files_of(plan)
    clock = Clock(sys.stderr)
    clock.tell(f"Training on {files.train}\n")
    with interruptible():
        try:
            with private_folder(keep=plan.keep) as folder:
                result = _on_private_stack(plan, files, folder, clock)
            clock.done("stop", "everything is stopped" + (f"; kept {folder}" if plan.keep else ""))
        except Interrupted as stopped:
            clock.stream.write(f"stopped by {stopped}; nothing is left running\n")
            return 128 + stopped.signum
    for table in summary(result, clock):
        write_table(table, sys.stderr if as_json else sys.stdout)
    if as_json:
        write_json(as_object(result, clock))
    elif result.talk:
        sys.stdout.write(what_next(result, files.train, files.test))
    return 0


def _on_private_stack(plan: Plan, files: Files, folder: Path, clock: Clock) -> Result:
    data = folder / "data"
    try:
        with private_stack(data) as settings:
            key = asyncio.run(issue_key(settings, name="demo", role="admin"))
            with Client(settings.gateway_url, key, patience_s=30) as client:
                session.wait_until_accepted(client)
                clock.done("servers", f"servers are up at {client.url}")
                return _main_job(plan, files, client, key, folder, clock)
    except Exception:
        _show_logs(data / "logs", clock.stream)
        raise


def _main_job(
    plan: Plan, files: Files, client: Client, key: str, folder: Path, clock: Clock
) -> Result:
    upload = partial(client.upload_dataset, text_column=plan.text, label_column=plan.label)
    dataset = upload(files.train)
    held_out = upload(files.test) if files.test else None
    held = (
        f"{len(dataset.labels)} labels" if dataset.labels else f"{dataset.messages or 0} messages"
    )
    clock.done("upload", f"uploaded {dataset.rows} rows with {held}")

    job = client.submit_job(
        model_name(files.train),
        dataset.id,
        test_dataset_id=held_out.id if held_out else None,
        method="sft" if plan.chat else None,
        hyperparameters={"epochs": plan.epochs} if plan.epochs else None,
    )
    if job.base_model == TINY:
        clock.tell(f"          {TINY} is made on this machine when it is first used\n")
    job = following.follow_job(client, job.id)
    if made := _made_here(client, job):
        clock.tell(f"          {clean(made)}\n")
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
    predictions, talk = [], None
    if version.method == "sft":
        unseen = held_out or dataset
        talk = demo_chat.talk(client, key, model.name, unseen.id, files.wordings, clock.tell)
        if talk.wordings:
            clock.done("serve", demo_chat.on_wordings(talk))
    else:
        texts = _texts_to_ask(client, evaluation)
        predictions = list(zip(texts, client.predict(model.name, texts), strict=True))
        clock.done("serve", f"predicted {len(predictions)} texts")
    archive = client.download(model.name, version.number, folder / f"{model.name}.zip")
    with zipfile.ZipFile(archive) as opened:
        content = [(each.filename, each.file_size) for each in opened.infolist()]
    zip_bytes = archive.stat().st_size
    clock.done("download", f"downloaded {archive.name}, {size(zip_bytes)}")
    events = client.events(after=0, limit=ALL_EVENTS)
    return Result(
        dataset.id, job, version, evaluation, predictions, talk, content, zip_bytes, events
    )


def _made_here(client: Client, job: Job) -> str:
    """What the log says of a base model that had to be made first."""
    lines = [line.message for line in client.logs(job.id)] if job.base_model == TINY else []
    return next((line for line in lines if line.startswith(MADE)), "")


def example_file(name: str = "intents.csv") -> Path:
    """A shipped example: beside the packages in a checkout, inside this one when installed."""
    package = Path(finetrail.__file__).parent
    for folder in (package.parent / "examples", package / "examples"):
        if (folder / name).is_file():
            return folder / name
    raise UsageProblem("the shipped example is not installed; name a file by --data")


def model_name(file: Path) -> str:
    """A name that a model may have, made of a file's."""
    name = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower())[:60].strip("._-")
    return name or "demo"


def files_of(plan: Plan) -> Files:
    """Which files are meant.

    Raises:
        UsageProblem: They do not exist, or do not belong together.
    """
    if plan.test and not plan.data:
        raise UsageProblem("--test needs --data: held-out rows belong to rows that were trained on")
    if plan.chat and not plan.data:
        return Files(*(example_file(f"support_chat{part}.jsonl") for part in CHAT_PARTS))
    train = plan.data or example_file()
    for file in filter(None, (train, plan.test)):
        if not file.is_file():
            raise UsageProblem(f"{file} is not a file")
    return Files(train.absolute(), plan.test.absolute() if plan.test else None)


def _texts_to_ask(client: Client, evaluation: Evaluation) -> list[str]:
    """Texts that were not trained on, with different labels where there are some."""
    examples = client.evaluation_examples(evaluation.id)
    by_label = {each.expected: each.text for each in examples}
    chosen = list(by_label.values()) + [each.text for each in examples]
    return list(dict.fromkeys(chosen))[:ASKED]


def _show_logs(folder: Path, stream: TextIO) -> None:
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        stream.write(f"--- {log.name}\n")
        stream.writelines(clean(line) + "\n" for line in lines)
