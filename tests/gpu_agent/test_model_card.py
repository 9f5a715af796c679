"""The code on a version's card, run as somebody would who unpacked the archive."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gateway.model_card import model_card
from gpu_agent.decoding import Rows, left_padded
from gpu_agent.lora import install, read_lora_weights, use
from gpu_agent.rendering import prompt_ids, text_ids
from projections.answers import Version
from tests.gateway.test_model_card import ROW
from tests.gpu_agent import babble


# peft reads a property that transformers 5 has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("kind", ["chat", "prompt_completion"])
def test_the_card_loads_the_version_and_it_answers_as_here(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = babble.write_model(tmp_path / "base_model", "qwen3", ends=True)
    adapter = babble.write_adapter(tmp_path / "lora_adapters", base)
    row = replace(ROW, spec={**ROW.spec, "train": {**ROW.spec["train"], "kind": kind}})
    (code, _) = re.findall(r"```python\n(.*?)```", model_card(Version(row, None)), re.DOTALL)
    (tmp_path / "load.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    runpy.run_path("load.py")

    model = babble.load(base)
    install(model)
    use(model, read_lora_weights(adapter, model))
    asked = {"chat": prompt_ids(model.tokenizer, [("user", "A question")])}
    asked["prompt_completion"] = text_ids(model.tokenizer, "The beginning")
    with torch.inference_mode():
        first = int(Rows(model.network, 1).read(*left_padded([asked[kind]])).argmax())
    assert capsys.readouterr().out.startswith(model.tokenizer.decode([first]))
