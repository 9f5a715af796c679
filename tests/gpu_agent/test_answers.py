"""Files of comparisons, ratings and plain texts reach the method that learns from them, and are evaluated."""

import gzip
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from domain.datasets.rows import RowReader
from domain.jobs.language_fit import learns_from
from domain.jobs.spec import BASE_MODELS, METHODS, DatasetRef, Method, RowKind
from domain.work import EvaluateAssignment, EvaluationFinished, Started, TrainingFinished
from gpu_agent import child
from gpu_agent.agent import METHODS as OFFERED
from gpu_agent.data import read_asked_splits, read_pair_splits, read_rated_splits
from gpu_agent.protocol import ChildFiles, ChildInput
from tests.gpu_agent import babble, tiny
from tests.gpu_agent.tiny import of_kind

ANSWERS: dict[str, list[dict[str, Any]]] = {
    "preference": [
        {"prompt": f"{text} ->", "chosen": " gladly", "rejected": " never"}
        for text, _ in tiny.rows()
    ],
    "kto": [
        {"prompt": f"{text} ->", "completion": " gladly", "label": bool(at % 2)}
        for at, (text, _) in enumerate(tiny.rows())
    ],
    "text": [{"text": f"{text}, and {label}"} for text, label in tiny.rows()],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    babble.write_model(folder / "qwen3", "qwen3", ends=True)
    return folder


def written(kind: str, folder: Path) -> tuple[Path, DatasetRef]:
    path = folder / f"{kind}.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, ANSWERS[kind])).encode()))
    reader = RowReader()
    reader.check(path.read_bytes())
    reader.check_rest()
    assert (reader.problems, reader.kind) == ([], kind)
    ref = tiny.chat_dataset(path).model_copy(
        update={
            "kind": kind,
            "format": reader.format,
            "text_column": reader.text_column,
            "label_column": reader.label_column,
        }
    )
    return path, ref


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("preference", "dpo"),
        ("preference", "orpo"),
        ("preference", "simpo"),
        ("kto", "kto"),
        ("text", "sft"),
    ],
)
def test_a_file_of_answers_is_trained_on_and_evaluated(
    kind: str, method: Method, tmp_path: Path, models: Path
) -> None:
    path, ref = written(kind, tmp_path)
    job = tiny.sft_spec("qwen3", path, epochs=1).model_copy(update={"method": method, "train": ref})
    order = tiny.train_order(job, path, tmp_path / "train", models)

    facts = list(child._work(order))

    (started,), (done,) = of_kind(facts, Started), of_kind(facts, TrainingFinished)
    assert started.supervision is not None
    assert started.supervision.supervised_tokens > 0
    assert started.test_rows > 0
    evaluated = list(child._work(evaluation_of(order, Path(done.folder), tmp_path / "evaluate")))
    (summary,) = (fact.summary for fact in of_kind(evaluated, EvaluationFinished))
    assert 0 < summary.rows <= started.test_rows


def evaluation_of(order: ChildInput, adapter: Path, folder: Path) -> ChildInput:
    assignment = order.assignment
    asked = EvaluateAssignment(
        workspace="default",
        evaluation_id=assignment.correlation_id,
        attempt=1,
        spec=assignment.spec,
        labels=(),
        adapter=(),
        correlation_id=assignment.correlation_id,
    )
    folder.mkdir()
    files = ChildFiles(train=order.files.train, adapter=adapter)
    return order.model_copy(update={"assignment": asked, "work_dir": folder, "files": files})


def test_rows_with_one_prompt_stay_together(tmp_path: Path) -> None:
    path, ref = written("preference", tmp_path)
    job = tiny.sft_spec("qwen3", path).model_copy(update={"method": "dpo", "train": ref})

    pairs = read_pair_splits(job, path, None)
    asked = read_asked_splits(job, path, None)

    rows = len(pairs.train) + len(pairs.validation) + len(pairs.test)
    assert rows == len(ANSWERS["preference"])
    assert [pair.answered()[0] for pair in pairs.test] == list(asked.test)
    assert not {pair.prompt for pair in pairs.train} & {pair.prompt for pair in pairs.test}


def test_only_wanted_answers_are_expected_of_a_model(tmp_path: Path) -> None:
    path, ref = written("kto", tmp_path)
    job = tiny.sft_spec("qwen3", path).model_copy(update={"method": "kto", "train": ref})

    rated = read_rated_splits(job, path, None)

    wanted = [row.answered() for row in rated.test if row.desirable]
    assert 0 < len(wanted) < len(rated.test)
    assert list(read_asked_splits(job, path, None).test) == wanted


def test_every_kind_of_rows_has_a_method_that_an_agent_offers() -> None:
    for kind in get_args(RowKind):
        assert learns_from(METHODS[kind], kind)
        assert METHODS[kind] in OFFERED
    for method in BASE_MODELS:
        assert any(learns_from(method, kind) for kind in get_args(RowKind)), method
    assert not learns_from("grpo", "text")
    assert not learns_from("dpo", "kto")
