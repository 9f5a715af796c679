"""What the demo works out without a stack: files, names, the object at its end."""

import csv
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetrail.cli.exits import UsageProblem
from finetrail.client import Evaluation, Event, Job, Version
from finetrail.demo import Clock, Plan, Result, as_object, example_file, model_name, run_demo
from finetrail.private_stack import Interrupted, interruptible, private_folder
from tests.cli import answers


def test_the_shipped_example_has_two_columns_and_eight_labels() -> None:
    with example_file().open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert len({row["intent"] for row in rows}) == 8
    assert all(row["text"] for row in rows)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("intents.csv", "intents"),
        ("My Tickets (final).csv", "my-tickets-final"),
        ("ÄÖÜ.csv", "demo"),
        ("x" * 80 + ".csv", "x" * 60),
    ],
)
def test_a_model_is_named_after_its_file(file: str, name: str) -> None:
    assert model_name(Path(file)) == name


def test_test_rows_alone_are_refused_before_anything_starts() -> None:
    with pytest.raises(UsageProblem, match="--data"):
        run_demo(Plan(test=Path("x.csv")), as_json=False)


def test_a_file_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="is not a file"):
        run_demo(Plan(data=tmp_path / "none.csv"), as_json=False)


def test_the_object_has_exactly_the_promised_keys() -> None:
    clock = Clock(sys.stderr)
    for phase in ("servers", "upload", "train", "evaluate", "serve", "download", "stop"):
        clock.done(phase, phase)

    found = as_object(_result(), clock)

    assert list(found) == [
        "dataset_id",
        "job_id",
        "model",
        "version",
        "evaluation",
        "zip_bytes",
        "events",
        "seconds",
    ]
    assert found["evaluation"] == {
        "base": {"accuracy": 0.9, "f1": 0.9},
        "untrained": {"accuracy": 0.12},
        "fine_tuned": {"accuracy": 0.98, "f1": 0.98},
        "p_value": 0.0005,
        "ci95": [0.04, 0.12],
    }
    assert set(found["seconds"]) == {"setup", "train", "evaluate", "total"}
    assert found["events"] == 2


def test_the_object_tells_how_a_language_model_was_measured() -> None:
    clock = Clock(sys.stderr)
    for phase in ("servers", "upload", "train", "evaluate"):
        clock.done(phase, phase)
    measured = answers.evaluation(summary=answers.language_summary())
    result = replace(_result(), evaluation=Evaluation.model_validate(measured))

    found = as_object(result, clock)["evaluation"]

    assert found == {
        "rows": 171,
        "metric": "accuracy",
        "base": {
            "accuracy": 0.18,
            "f1": 0.1,
            "exact_match": pytest.approx(0.17),
            "perplexity": 3.5,
            "bits_per_byte": 2.5,
        },
        "fine_tuned": {
            "accuracy": 0.74,
            "f1": 0.7,
            "exact_match": pytest.approx(0.73),
            "perplexity": 3.5,
            "bits_per_byte": 0.25,
        },
        "p_value": 0.0005,
        "ci95": [0.49, 0.63],
        "verdict": "better",
    }


def test_only_the_first_signal_interrupts_so_that_cleaning_up_is_finished() -> None:
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    with pytest.raises(Interrupted) as raised, interruptible():
        work()

    assert raised.value.signum == signal.SIGTERM
    assert cleaned == [True]


def test_signals_mean_again_what_they_meant_before() -> None:
    before = signal.getsignal(signal.SIGINT)

    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before

    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("keep", [True, False])
def test_the_private_folder_goes_unless_it_is_kept(keep: bool, tmp_path: Path) -> None:
    here = Path.cwd()

    with private_folder(keep=keep) as folder:
        assert Path.cwd() == folder.resolve()
        (folder / "data").mkdir()

    assert folder.exists() is keep
    assert Path.cwd() == here
    if keep:
        (folder / "data").rmdir()
        folder.rmdir()


def _result() -> Result:
    return Result(
        dataset_id="d1",
        job=Job.model_validate(answers.succeeded()),
        version=Version.model_validate(answers.version()),
        evaluation=Evaluation.model_validate(answers.evaluation()),
        predictions=[],
        archive=[],
        zip_bytes=1000,
        events=[Event.model_validate(answers.event(number)) for number in (1, 2)],
    )
