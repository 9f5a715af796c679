"""The code on the card of a model of a table, run as somebody would who unpacked the archive."""

import ast
import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from domain.datasets.tables import TableCounts
from domain.jobs.tabular import TABULAR_MODELS
from domain.work import EvaluationFinished, TrainingFinished
from gateway.model_card import model_card
from gpu_agent.tabular.model import TabularModel
from projections.answers import Version
from tests.gateway.test_model_card import ROW, evaluated
from tests.gpu_agent import tables


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("family", TABULAR_MODELS)
def test_the_card_predicts_with_numpy_alone_what_is_served(
    family: str,
    classes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tables.write(tmp_path / "rows.csv", classes=classes)
    job = tables.spec(data, family)
    counts = TableCounts(
        cleaned=5, by_reason={"missing": 5}, missing={"size": 5}, groups=150, largest_group=4
    )
    ref = job.train.model_copy(update={"cleaned": counts})
    job = job.model_copy(update={"train": ref})
    trained = tables.train(job, data, tmp_path)[-1]
    assert isinstance(trained, TrainingFinished)
    finished = tables.evaluate(job, data, tmp_path, Path(trained.folder), trained.labels)[-1]
    assert isinstance(finished, EvaluationFinished)
    row = replace(
        ROW,
        method="tabular",
        base_model=family,
        base_model_record=None,
        labels=list(trained.labels),
        spec=job.in_full(),
    )
    evaluation = replace(
        evaluated(labelled=True),
        summary=finished.summary.model_dump(mode="json", exclude={"examples"}),
    )

    card = model_card(Version(row, evaluation))

    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (tmp_path / "load.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    runpy.run_path("load.py")
    said = ast.literal_eval(capsys.readouterr().out)
    model = TabularModel.load(Path(trained.folder))
    (expected,) = model.probabilities([{"size": None, "weight": None, "colour": "blue"}]).tolist()
    assert said == pytest.approx(dict(zip(model.labels, expected, strict=True)), abs=2e-6)
    assert "5 values are read otherwise than they stand in the file" in card
    assert "Missing values by column: `size` 5" in card
    assert f"always `{finished.summary.majority.label}`" in card  # type: ignore[union-attr]
    assert all(f"| `{label}` |" in card for label in model.labels)
    assert "| `size` | numeric |" in card
