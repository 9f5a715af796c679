"""The card of a language model: what it is, how good it is, and code that would load it."""

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from domain.jobs.spec import TINY
from domain.work import EvaluationSummary
from gateway.model_card import model_card
from projections.answers import Version
from projections.evaluations import EvaluationRow
from projections.model_versions import VersionRow
from tests import samples

RECORD: dict[str, Any] = {
    "id": TINY,
    "revision": None,
    "license": "Apache-2.0",
    "parameters": 690_000,
    "sha256": {"config.json": "c" * 64, "model.safetensors": "d" * 64},
    "files": [{"path": "base_model/config.json"}],
}
SPEC = samples.CHAT_SPEC
ROW = VersionRow(
    workspace=samples.WORKSPACE,
    id=samples.VERSION,
    created_sequence=1,
    sequence=1,
    model_id=samples.MODEL,
    model="support-chat",
    number=3,
    label="20261120-174305",
    status="ready",
    message=None,
    job_id=samples.JOB,
    method="sft",
    base_model=TINY,
    base_model_record=RECORD,
    labels=[],
    files=[],
    size=0,
    spec=SPEC.model_dump(mode="json"),
    environment=samples.ENVIRONMENT.model_dump(mode="json"),
    train_rows=600,
    trained_tokens=90_000,
    steps=95,
    seconds=8.0,
    final_loss=0.2,
    validation_accuracy=None,
    created_at=samples.NOW,
)


def scores(accuracy: float, bits: float, *, labelled: bool) -> Any:
    return samples.scores(accuracy).model_copy(
        update={
            **({} if labelled else {"f1": None, "precision": None, "recall": None}),
            "exact_match": accuracy,
            "perplexity": 2.0,
            "bits_per_byte": bits,
        }
    )


def evaluated(*, labelled: bool, **changes: Any) -> EvaluationRow:
    summary: EvaluationSummary = samples.SUMMARY.model_copy(
        update={
            "metric": "accuracy" if labelled else "bits_per_byte",
            "base": scores(0.2, 2.5, labelled=labelled),
            "untrained": None,
            "fine_tuned": scores(0.75, 0.25, labelled=labelled),
            "accuracy_delta": 0.55,
            "ci95": (0.48, 0.62) if labelled else (-2.5, -2.0),
            "bits_per_byte_delta": -2.25,
            "generated_rows": 100,
            **changes,
        }
    )
    return EvaluationRow(
        workspace=samples.WORKSPACE,
        id=UUID(int=9),
        created_sequence=2,
        sequence=2,
        version_id=samples.VERSION,
        model_id=samples.MODEL,
        model="support-chat",
        job_id=samples.JOB,
        status="completed",
        attempt=1,
        agent_id=None,
        summary=summary.model_dump(mode="json", exclude={"examples"}),
        outputs=None,
        error_code=None,
        error_message=None,
        created_at=samples.NOW,
        started_at=None,
        ended_at=None,
    )


def card(row: VersionRow = ROW, evaluation: EvaluationRow | None = None) -> str:
    return model_card(Version(row, evaluation))


def code_of(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_it_says_what_was_trained_on_what() -> None:
    text = card()

    assert text.startswith("# support-chat, version 3\n")
    assert "A language model" in text
    assert "rank 16 and alpha 32 on `all-linear` for `finetrail/tiny`" in text
    assert "| licence | `Apache-2.0` |" in text
    assert "| parameters | 690,000 |" in text
    assert "d" * 64 in text
    assert "its files lie in `base_model/`" in text
    assert "Not evaluated yet." in text


def test_right_labels_are_the_verdict_where_there_are_labels() -> None:
    text = card(evaluation=evaluated(labelled=True))

    assert "| fine-tuned | 0.7500 | 0.7500 | 0.7500 | 2.0000 | 0.2500 |" in text
    assert "exact answers on 100 of them" in text
    assert "Accuracy of fine-tuned minus base: +0.5500" in text
    assert "[+0.4800, +0.6200] (paired bootstrap), p = 0.003 (exact McNemar test)" in text
    assert "untrained" not in text


def test_bits_a_byte_are_the_verdict_of_free_text() -> None:
    text = card(evaluation=evaluated(labelled=False))

    assert "F1" not in text
    assert "less being better: -2.2500, 95 % interval [-2.5000, -2.0000]" in text
    assert "Exact answers differ with p = 0.003" in text


@pytest.mark.parametrize("kind", ["chat", "prompt_completion"])
def test_the_code_is_code(kind: str) -> None:
    spec = SPEC.model_copy(update={"train": SPEC.train.model_copy(update={"kind": kind})})

    with_peft, with_openai = code_of(card(replace(ROW, spec=spec.model_dump(mode="json"))))

    compile(with_peft, "card", "exec")
    compile(with_openai, "card", "exec")
    assert 'PeftModel.from_pretrained(model, "lora_adapters")' in with_peft
    assert 'base = "base_model"' in with_peft
    assert 'model="support-chat:3"' in with_openai
    assert ("apply_chat_template" in with_peft) is (kind == "chat")
    assert ("chat.completions" in with_openai) is (kind == "chat")


def test_a_model_from_a_hub_is_loaded_at_its_commit() -> None:
    record = RECORD | {"id": "Qwen/Qwen2.5-0.5B", "revision": "a" * 40, "files": []}

    (with_peft, _) = code_of(card(replace(ROW, base_model_record=record)))

    assert 'base = "Qwen/Qwen2.5-0.5B"' in with_peft
    assert with_peft.count(f'revision="{"a" * 40}"') == 2


def test_names_in_it_cannot_become_markup() -> None:
    record = RECORD | {"license": "`|<b>\n# loud", "files": []}
    hostile = replace(ROW, base_model="a\n```\n# b", base_model_record=record | {"id": "x\n```\n"})

    text = card(hostile)

    assert not re.search(r"^# (loud|b)", text, flags=re.MULTILINE)
    assert text.count("\n```\n") == 2  # the ends of the two pieces of code
