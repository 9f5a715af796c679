"""What a model card says of a language model and not of a classifier."""

import json
from typing import Any, Final

from gateway.markdown import code, number, table
from projections.model_versions import VersionRow

STORED: Final = "base_model"  # the folder in the archive, where the base model was made here
_SYSTEMS: Final = (("base, without the adapter", "base"), ("fine-tuned", "fine_tuned"))
_FIGURES: Final = (
    ("accuracy", "accuracy"),
    ("F1 (macro)", "f1"),
    ("exact answers", "exact_match"),
    ("perplexity", "perplexity"),
    ("bits a byte", "bits_per_byte"),
)

_HOW: Final = {
    "sft": "on conversations by supervised fine-tuning, with the loss taken over its answers alone",
    "dpo": "on pairs of answers by direct preference optimisation (DPO)",
    "orpo": "on pairs of answers by odds ratio preference optimisation (ORPO)",
    "simpo": "on pairs of answers by simple preference optimisation (SimPO)",
    "kto": "on rated answers by Kahneman-Tversky optimisation (KTO)",
    "grpo": "on its own answers by rewards that can be checked (GRPO)",
}


def what(row: VersionRow) -> str:
    lora = row.spec["hyperparameters"]["lora"]
    layers = ", ".join(code(name) for name in lora["target_modules"])
    return (
        f"A language model, trained {_HOW[row.method]}.\n"
        f"It is a LoRA adapter of rank {lora['rank']} and alpha {lora['alpha']:g} on {layers} "
        f"for {code(row.base_model)}, trained {row.label}."
    )


def base_model(row: VersionRow) -> str:
    record = row.base_model_record
    if record is None:
        return f"{code(row.base_model)}; what its files were is not recorded."
    facts = [
        ("id", code(record["id"])),
        ("commit", code(record["revision"]) if record["revision"] else "–"),
        ("licence", code(record["license"]) if record["license"] else "not stated"),
        ("parameters", f"{record['parameters']:,}" if record["parameters"] else "–"),
        *((code(name), f"SHA-256 {code(digest)}") for name, digest in record["sha256"].items()),
    ]
    made = f"\n\nIt was made here; its files lie in `{STORED}/`." if record["files"] else ""
    return table(("", ""), facts) + made


def figures(summary: dict[str, Any]) -> str:
    shown = [
        (title, figure)
        for title, figure in _FIGURES
        if summary["fine_tuned"].get(figure) is not None
    ]
    rows = [
        (name, *(number(summary[key].get(figure)) for _, figure in shown)) for name, key in _SYSTEMS
    ]
    return (
        f"On {summary['rows']} held-out rows, both on the same ones"
        f"{_generated(summary)}:\n\n"
        f"{table(('', *(title for title, _ in shown)), rows)}\n\n"
        f"{_conclusion(summary)}"
    )


def _generated(summary: dict[str, Any]) -> str:
    generated = summary.get("generated_rows")
    if generated is None or generated == summary["rows"]:
        return ""
    return f"; exact answers on {generated} of them"


def _conclusion(summary: dict[str, Any]) -> str:
    low, high = summary["ci95"]
    interval = f"95 % interval [{low:+.4f}, {high:+.4f}] (paired bootstrap)"
    test = f"p = {summary['p_value']:.4g} (exact McNemar test)"
    if summary["metric"] == "bits_per_byte":
        return (
            f"Bits a byte of fine-tuned minus base, less being better: "
            f"{summary['bits_per_byte_delta']:+.4f}, {interval}: **{summary['verdict']}**. "
            f"Exact answers differ with {test}."
        )
    return (
        f"Accuracy of fine-tuned minus base: {summary['accuracy_delta']:+.4f}, {interval}, "
        f"{test}: **{summary['verdict']}**."
    )


def loading(row: VersionRow) -> str:
    record = row.base_model_record or {}
    base, pinned, where = record.get("id", row.base_model), "", "or the folder that holds it"
    if record.get("revision"):
        pinned = f", revision={json.dumps(record['revision'])}"
    if record.get("files"):
        base, where = STORED, "in this archive"
    asked = "The beginning" if _raw(row) else "A question"
    tokens = (
        f'tokens = tokenizer({json.dumps(asked)}, return_tensors="pt")\n'
        if _raw(row)
        else "tokens = tokenizer.apply_chat_template(\n"
        f'    [{{"role": "user", "content": {json.dumps(asked)}}}],\n'
        '    add_generation_prompt=True, return_dict=True, return_tensors="pt",\n'
        ")\n"
    )
    return (
        "With peft:\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = {json.dumps(base)}  # {where}\n"
        f"tokenizer = AutoTokenizer.from_pretrained(base{pinned})\n"
        f"model = AutoModelForCausalLM.from_pretrained(base{pinned})\n"
        'model = PeftModel.from_pretrained(model, "lora_adapters").eval()\n'
        f"{tokens}"
        "said = model.generate(**tokens, max_new_tokens=100, do_sample=False)[0]\n"
        'print(tokenizer.decode(said[tokens["input_ids"].shape[1]:], skip_special_tokens=True))\n'
        "```\n\n"
        "As long as the gateway it comes from serves it, with any client of OpenAI's API:\n\n"
        "```python\n"
        "from openai import OpenAI\n\n"
        'client = OpenAI(base_url="http://127.0.0.1:8420/v1", api_key="fpk_…")\n'
        f"{_call(row, asked)}"
        "```"
    )


def _call(row: VersionRow, asked: str) -> str:
    name = json.dumps(f"{row.model}:{row.number}")
    if _raw(row):
        return (
            f"said = client.completions.create(model={name}, prompt={json.dumps(asked)})\n"
            "print(said.choices[0].text)\n"
        )
    return (
        "said = client.chat.completions.create(\n"
        f"    model={name},\n"
        f'    messages=[{{"role": "user", "content": {json.dumps(asked)}}}],\n'
        ")\n"
        "print(said.choices[0].message.content)\n"
    )


def _raw(row: VersionRow) -> bool:
    return row.spec["train"].get("kind") in {"prompt_completion", "text"}
