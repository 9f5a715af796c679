"""The model card: what a version is, where it came from, how good it is, how to load it."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from domain.jobs.spec import DEFAULT_BASE_MODEL
from projections.answers import Version
from projections.model_versions import VersionRow

MAX_LABELS: Final = 50  # listed by name; the rest stands in labels.json
_SHIPPED_ON_HUB: Final = "sentence-transformers/all-MiniLM-L6-v2"  # the same weights
_SYSTEMS: Final = (
    ("base: frozen encoder + logistic regression", "base"),
    ("untrained head", "untrained"),
    ("fine-tuned", "fine_tuned"),
)


def model_card(version: Version) -> str:
    """Markdown in which nothing that a user named can become markup."""
    row = version.row
    evaluation = version.evaluation
    summary = evaluation.summary if evaluation else None
    parts = [
        f"# {row.model}, version {row.number}",
        _what(row),
        "## Evaluation",
        _figures(summary) if summary else "Not evaluated yet.",
        "## Data",
        _data(row),
        "## Training",
        _training(row),
        "## Loading it",
        _loading(row),
        "## Lineage",
        _lineage(row),
    ]
    return "\n\n".join(parts) + "\n"


def _what(row: VersionRow) -> str:
    shown = [_code(label) for label in row.labels[:MAX_LABELS]]
    rest = len(row.labels) - len(shown)
    more = f" and {rest} more, all in `lora_adapters/labels.json`" if rest > 0 else ""
    return (
        f"A text classifier with {len(row.labels)} labels: {', '.join(shown)}{more}.\n"
        f"It is a LoRA adapter for {_code(row.base_model)}, trained {row.label}."
    )


def _figures(summary: dict[str, Any]) -> str:
    rows = [
        (
            name,
            *(
                _number(summary[key].get(figure))
                for figure in ("accuracy", "f1", "precision", "recall")
            ),
        )
        for name, key in _SYSTEMS
    ]
    low, high = summary["ci95"]
    return (
        f"On {summary['rows']} held-out rows, all systems on the same ones:\n\n"
        f"{_table(('', 'accuracy', 'F1 (macro)', 'precision', 'recall'), rows)}\n\n"
        f"Accuracy of fine-tuned minus base: {summary['accuracy_delta']:+.4f}, "
        f"95 % interval [{low:+.4f}, {high:+.4f}] (paired bootstrap), "
        f"p = {summary['p_value']:.4g} (exact McNemar test): **{summary['verdict']}**."
    )


def _data(row: VersionRow) -> str:
    found = [("training", row.spec["train"])]
    if row.spec.get("test"):
        found.append(("test", row.spec["test"]))
    rows = [
        (
            use,
            _code(ref["name"]),
            f"{ref['rows']:,}",
            _code(ref["dataset_id"]),
            _code(ref["blob"]["sha256"]),
        )
        for use, ref in found
    ]
    split = row.spec["split"]
    shares = f"Split by seed {split['seed']}: {split['validation_fraction']:.0%} for validation" + (
        "." if row.spec.get("test") else f", {split['test_fraction']:.0%} held out for the test."
    )
    return f"{_table(('use', 'name', 'rows', 'dataset', 'SHA-256'), rows)}\n\n{shares}"


def _training(row: VersionRow) -> str:
    hyper = row.spec["hyperparameters"]
    lora = hyper["lora"]
    settings = [(name, value) for name, value in hyper.items() if name != "lora"]
    settings += [(f"lora.{name}", _shown(value)) for name, value in lora.items()]
    settings.append(("seed", row.spec["seed"]))
    validation = (
        "not measured" if row.validation_accuracy is None else f"{row.validation_accuracy:.4f}"
    )
    return (
        f"{row.train_rows:,} rows, {row.trained_tokens:,} tokens, {row.steps:,} steps in "
        f"{row.seconds:.1f} s; final loss {row.final_loss:.4f}; validation accuracy {validation}.\n\n"
        f"{_table(('setting', 'value'), [(n, _code(v)) for n, v in settings])}"
    )


def _loading(row: VersionRow) -> str:
    hub_id = _SHIPPED_ON_HUB if row.base_model == DEFAULT_BASE_MODEL else row.base_model
    return (
        "```python\n"
        "import json\n\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"base = {json.dumps(hub_id)}  # or the folder that holds these weights\n"
        'labels = json.load(open("lora_adapters/labels.json"))\n'
        "model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels))\n"
        'model = PeftModel.from_pretrained(model, "lora_adapters").eval()\n'
        "tokenizer = AutoTokenizer.from_pretrained(base)\n"
        "```"
    )


def _lineage(row: VersionRow) -> str:
    environment = row.environment
    facts = [
        ("job", _code(row.job_id)),
        ("version", _code(row.id)),
        ("trained on", _code(f"{environment['device_name']} ({environment['device']})")),
        ("threads", _code(environment["threads"])),
        ("Python", _code(environment["python"])),
        ("finetrail", _code(environment["code"])),
        *((name, _code(release)) for name, release in sorted(environment["packages"].items())),
    ]
    files = [
        (_code(file["path"]), f"{file['size']:,}", _code(file["sha256"])) for file in row.files
    ]
    return f"{_table(('', ''), facts)}\n\n{_table(('file', 'bytes', 'SHA-256'), files)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _code(value: object) -> str:
    """As code, on one line, and without what would end the cell or the code."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return "`" + text.replace("`", "ʼ").replace("|", "¦") + "`"
