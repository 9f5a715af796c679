"""A language model with and without its adapter on the same held-out conversations."""

import json
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import torch
from torch.nn.functional import cross_entropy

from domain.blobs import BlobRef
from domain.jobs.spec import DatasetRef, JobSpec
from domain.work import EvaluateAssignment, EvaluationFinished, Fact, LogLine
from gpu_agent import language_evaluation
from gpu_agent.data import read_conversation_splits
from gpu_agent.language_evaluation import evaluate
from gpu_agent.outcomes import CheckpointUnreadable, DataUnreadable
from gpu_agent.packing import pack, predictions, row_by_row
from gpu_agent.protocol import ChildFiles, ChildInput
from gpu_agent.rendering import render
from gpu_agent.statistics import compare
from tests.gpu_agent import babble

LABELS = ("billing", "delivery", "refund")
SYSTEMS = ("base", "fine_tuned")


class Bench(NamedTuple):
    base: Path
    adapter: Path
    labelled: Path
    free: Path


def write_chats(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = (
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text, answer in rows
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    base = babble.write_model(folder / "models" / "babble", "qwen3", ends=True)
    return Bench(
        base=base,
        adapter=babble.write_adapter(folder / "adapter", base),
        labelled=write_chats(
            folder / "labelled.jsonl", [(f"question {n}", LABELS[n % 3]) for n in range(60)]
        ),
        free=write_chats(
            folder / "free.jsonl", [(f"question {n}", f"the answer is {n * n}") for n in range(60)]
        ),
    )


def order(bench: Bench, data: Path, work_dir: Path, **hyperparameters: Any) -> ChildInput:
    train = DatasetRef(
        dataset_id=UUID(int=1),
        name=data.name,
        blob=BlobRef(sha256="0" * 64, size=data.stat().st_size, crc32=0),
        format="jsonl",
        delimiter=None,
        kind="chat",
        text_column="messages",
        label_column="",
        rows=60,
        labels=(),
    )
    spec = JobSpec.model_validate(
        {
            "method": "sft",
            "base_model": bench.base.name,
            "model_name": "babbler",
            "train": train,
            "split": {"validation_fraction": 0.1, "test_fraction": 0.4},
            "hyperparameters": {"max_length": babble.CONTEXT, **hyperparameters},
        }
    )
    work_dir.mkdir(exist_ok=True)
    return ChildInput(
        assignment=EvaluateAssignment(
            workspace="default",
            evaluation_id=UUID(int=4),
            attempt=1,
            spec=spec,
            labels=(),
            adapter=(),
            correlation_id=UUID(int=3),
        ),
        work_dir=work_dir,
        files=ChildFiles(train=data, adapter=bench.adapter),
        models_folder=bench.base.parent,
        device="cpu",
        threads=1,
    )


def facts_of(order: ChildInput) -> list[Fact]:
    assert isinstance(order.assignment, EvaluateAssignment)
    return list(evaluate(order, order.assignment))


def finished(order: ChildInput) -> tuple[EvaluationFinished, list[dict[str, Any]]]:
    last = facts_of(order)[-1]
    assert isinstance(last, EvaluationFinished)
    lines = Path(last.outputs_path).read_text(encoding="utf-8").splitlines()
    return last, [json.loads(line) for line in lines]


def test_figures_follow_from_the_outputs_of_each_row(bench: Bench, tmp_path: Path) -> None:
    found, outputs = finished(order(bench, bench.labelled, tmp_path))

    summary = found.summary
    assert summary.rows == len(outputs) == summary.generated_rows == 24
    for system in SYSTEMS:
        scores = getattr(summary, system)
        said = [row[system] for row in outputs]
        expected = [row["expected"] for row in outputs]
        right = [one["label"] == want for one, want in zip(said, expected, strict=True)]
        exact = [one["answer"] == want for one, want in zip(said, expected, strict=True)]
        nats = sum(one["nats"] for one in said)
        assert scores.accuracy == pytest.approx(fmean(right))
        assert scores.exact_match == pytest.approx(fmean(exact))
        assert scores.perplexity == pytest.approx(exp(nats / sum(row["tokens"] for row in outputs)))
        assert scores.bits_per_byte == pytest.approx(
            nats / log(2) / sum(len(answer) for answer in expected)
        )
        assert scores.f1 is not None
        for one in said:
            assert one["label"] == max(one["log_likelihoods"], key=one["log_likelihoods"].get)


def test_right_labels_are_compared_row_by_row(bench: Bench, tmp_path: Path) -> None:
    found, outputs = finished(order(bench, bench.labelled, tmp_path))

    right = [[row[system]["label"] == row["expected"] for row in outputs] for system in SYSTEMS]
    paired = compare(*right)
    summary = found.summary
    assert summary.metric == "accuracy"
    assert summary.untrained is None
    assert (summary.p_value, summary.ci95, summary.verdict) == (
        paired.p_value,
        paired.ci95,
        paired.verdict,
    )
    assert summary.accuracy_delta == pytest.approx(fmean(right[1]) - fmean(right[0]))
    assert {example.text for example in summary.examples} <= {f"question {n}" for n in range(60)}


def test_the_label_that_is_expected_costs_what_the_row_does(bench: Bench, tmp_path: Path) -> None:
    _, outputs = finished(order(bench, bench.labelled, tmp_path))

    for row in outputs:
        for system in SYSTEMS:
            likelihood = row[system]["log_likelihoods"][row["expected"]]
            assert likelihood == pytest.approx(-row[system]["nats"], abs=1e-3)


def test_free_text_is_judged_by_bits_a_byte(bench: Bench, tmp_path: Path) -> None:
    found, outputs = finished(order(bench, bench.free, tmp_path))

    summary = found.summary
    bits = [
        sum(row[system]["nats"] for row in outputs) / log(2) / sum(row["bytes"] for row in outputs)
        for system in SYSTEMS
    ]
    assert summary.metric == "bits_per_byte"
    assert summary.bits_per_byte_delta == pytest.approx(bits[1] - bits[0])
    assert summary.ci95[0] <= summary.bits_per_byte_delta <= summary.ci95[1]
    assert summary.verdict == ("worse" if summary.ci95[0] > 0 else "inconclusive")
    assert summary.base.f1 is summary.f1_delta is None
    assert summary.base.accuracy == summary.base.exact_match
    assert "label" not in outputs[0]["base"]


def test_perplexity_is_that_of_the_training_loss(bench: Bench, tmp_path: Path) -> None:
    asked = order(bench, bench.free, tmp_path)
    found, _ = finished(asked)

    model = babble.load(bench.base)
    rows = read_conversation_splits(asked.assignment.spec, bench.free, None).test
    rendered = [render(model.tokenizer, row, babble.CONTEXT) for row in rows]
    with torch.inference_mode(), row_by_row(model.network) as together:
        batch = pack(rendered, model.device)
        loss = float(cross_entropy(predictions(model.network, batch), batch.targets))
    assert together
    assert found.summary.base.perplexity == pytest.approx(exp(loss), rel=1e-4)


def test_few_rows_are_answered_where_there_are_many(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_evaluation, "GENERATED_ROWS", 5)

    found, outputs = finished(order(bench, bench.free, tmp_path))

    assert (found.summary.rows, found.summary.generated_rows) == (24, 5)
    answered = [row for row in outputs if row["base"]["answer"] is not None]
    assert len(answered) == 5
    assert answered != outputs[:5]
    assert {example.base for example in found.summary.examples} == {
        row["base"]["answer"] for row in answered
    }


def test_everything_but_the_times_is_the_same_twice(bench: Bench, tmp_path: Path) -> None:
    first, first_outputs = finished(order(bench, bench.labelled, tmp_path / "first"))
    second, second_outputs = finished(order(bench, bench.labelled, tmp_path / "second"))

    timeless: Any = {"seconds": True}
    timeless |= {system: {"latency_ms_p50", "latency_ms_mean"} for system in SYSTEMS}
    assert first.summary.model_dump(exclude=timeless) == second.summary.model_dump(exclude=timeless)
    assert first_outputs == second_outputs


def test_rows_that_do_not_fit_are_left_out_and_counted(bench: Bench, tmp_path: Path) -> None:
    rows = [(f"question {n}" + " x" * 30 * (n % 2), LABELS[n % 3]) for n in range(60)]
    data = write_chats(tmp_path / "uneven.jsonl", rows)

    facts = facts_of(order(bench, data, tmp_path, max_length=60))

    logged = [fact.message for fact in facts if isinstance(fact, LogLine)]
    assert isinstance(facts[-1], EvaluationFinished)
    left_out = 24 - facts[-1].summary.rows
    assert 0 < left_out < 24
    assert any(line.startswith(f"{left_out} held-out rows are too long") for line in logged)


def test_rows_of_which_none_fits_are_an_outcome(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(DataUnreadable, match="short enough"):
        facts_of(order(bench, bench.labelled, tmp_path, max_length=8))


def test_an_evaluation_without_an_adapter_is_an_outcome(bench: Bench, tmp_path: Path) -> None:
    asked = order(bench, bench.labelled, tmp_path)
    bare = asked.model_copy(update={"files": ChildFiles(train=bench.labelled)})

    with pytest.raises(CheckpointUnreadable, match="no adapter"):
        facts_of(bare)


def test_there_are_signs_of_life_between_the_rows(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_evaluation, "ROWS_AT_ONCE", 10)

    facts = facts_of(order(bench, bench.free, tmp_path))

    read = [
        fact.message for fact in facts if isinstance(fact, LogLine) and "rows read" in fact.message
    ]
    assert read == [
        f"{name}: {rows} of 24 rows read"
        for name in ("base", "fine-tuned")
        for rows in (10, 20, 24)
    ]
