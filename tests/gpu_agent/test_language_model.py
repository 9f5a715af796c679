"""What is loaded is a whole causal language model that knows where answers end, or it is refused."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaModel

from gpu_agent.outcomes import BaseModelRefused
from tests.gpu_agent import babble

# As of many base models: their own end of text, and a template whose turns end otherwise.
CHATML = (
    "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|system|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
SIZES = {
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def test_weights_that_are_not_in_the_files_are_not_made_up(tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    LlamaModel(LlamaConfig(**SIZES)).save_pretrained(folder)
    babble.tokenizer().save_pretrained(folder)

    with pytest.raises(BaseModelRefused, match=r"1 of its weights are not .* lm_head\.weight"):
        babble.load(folder)


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    folder = babble.write_model(tmp_path / "misshapen")
    changed = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 48}
    (folder / "config.json").write_text(json.dumps(changed))

    with pytest.raises(BaseModelRefused, match=r"of another shape, model\.layers\.0\.mlp"):
        babble.load(folder)


def test_configuration_that_contradicts_itself_is_an_outcome(tmp_path: Path) -> None:
    folder = babble.write_model(tmp_path / "contradictory", "qwen3")
    changed = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3}
    (folder / "config.json").write_text(json.dumps(changed))

    with pytest.raises(BaseModelRefused, match="is no language model to be used"):
        babble.load(folder)


def test_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = babble.write_model(tmp_path / "dumb", "qwen3")
    for path in folder.glob("*token*"):
        path.unlink()

    with pytest.raises(BaseModelRefused, match="has no tokenizer"):
        babble.load(folder)


def test_end_that_the_network_has_no_place_for_is_refused(tmp_path: Path) -> None:
    folder = babble.write_model(tmp_path / "grown")
    tokenizer = babble.tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|new|>"})
    tokenizer.save_pretrained(folder)

    with pytest.raises(BaseModelRefused, match=r"token 260 .* knows 260 tokens only"):
        babble.load(folder)


def test_encoder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(folder)
    babble.tokenizer().save_pretrained(folder)

    with pytest.raises(BaseModelRefused, match="is an encoder"):
        babble.load(folder)


def test_answer_ends_with_what_the_template_ends_a_turn_with(tmp_path: Path) -> None:
    folder = babble.write_model(tmp_path / "base")
    tokenizer = babble.tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)

    ends = babble.load(folder).eos_ids

    assert ends == {
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids("<|system|>"),
    }


def test_model_without_a_template_ends_with_its_end_of_text_alone(tmp_path: Path) -> None:
    folder = babble.write_model(tmp_path / "raw")
    tokenizer = babble.tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)

    assert babble.load(folder).eos_ids == {tokenizer.eos_token_id}
