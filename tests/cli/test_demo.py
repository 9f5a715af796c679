"""What the demo works out without a stack: files, names, the object at its end."""

import csv
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetrail.cli.exits import UsageProblem
from finetrail.client import Evaluation, Event, Job, Version
from finetrail.demo import Plan, example_file, files_of, model_name, run_demo
from finetrail.demo_chat import Said, Talk
from finetrail.demo_results import Clock, Result, as_object, what_next
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


def test_the_shipped_conversations_come_with_held_out_rows_and_with_other_wordings() -> None:
    files = files_of(Plan(chat=True))

    assert files.test is not None
    assert files.wordings is not None
    rows = {
        name: [json.loads(line) for line in path.read_text().splitlines()]
        for name, path in (
            ("train", files.train),
            ("test", files.test),
            ("wordings", files.wordings),
        )
    }
    prompts = {name: {row["messages"][0]["content"] for row in rows[name]} for name in rows}
    answers_of = {name: {row["messages"][-1]["content"] for row in rows[name]} for name in rows}
    assert len(rows["test"]) >= 200
    assert prompts["train"].isdisjoint(prompts["test"] | prompts["wordings"])
    assert answers_of["train"] == answers_of["test"] == answers_of["wordings"]


def test_rows_of_ones_own_have_no_other_wordings(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text("{}")

    files = files_of(Plan(chat=True, data=tmp_path / "chats.jsonl"))

    assert (files.train.name, files.test, files.wordings) == ("chats.jsonl", None, None)


def test_what_to_do_next_can_be_typed_as_it_stands() -> None:
    said = what_next(_result(), Path("/x/chats.jsonl"), Path("/x/test.jsonl"))

    assert "finetrail train /x/chats.jsonl --test /x/test.jsonl --model intents --follow" in said


def test_a_language_models_answers_are_in_the_object() -> None:
    clock = Clock(sys.stderr)
    for phase in ("servers", "upload", "train", "evaluate", "serve"):
        clock.done(phase, phase)
    said = [Said("where?", "delivery", 0.01, 0.02)]
    result = replace(_result(), talk=Talk(said, wordings=60, wordings_right=28))

    found = as_object(result, clock)

    assert found["answers"] == [
        {"prompt": "where?", "answer": "delivery", "first_s": 0.01, "seconds": 0.02}
    ]
    assert found["unseen_wordings"] == {"asked": 60, "right": 28}


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
        talk=None,
        archive=[],
        zip_bytes=1000,
        events=[Event.model_validate(answers.event(number)) for number in (1, 2)],
    )
