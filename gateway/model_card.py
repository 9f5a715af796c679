"""The model card: what a version is, where it came from, how good it is, how to load it."""

import json
from typing import Any, Final

from domain.jobs.spec import DEFAULT_BASE_MODEL, LANGUAGE_METHODS
from gateway import language_model_card, table_model_card
from gateway.markdown import code, number, table
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
    row = version.row
    if row.method == "tabular":
        return _table_card(version)
    talks = row.method in LANGUAGE_METHODS
    evaluation = version.evaluation
    summary = evaluation.summary if evaluation else None
    parts = [
        f"# {row.model}, version {row.number}",
        language_model_card.what(row) if talks else _what(row),
        *(["## Base model", language_model_card.base_model(row)] if talks else []),
        "## Evaluation",
        _evaluation(summary) if summary else "Not evaluated yet.",
        "## Data",
        _data(row),
        "## Training",
        _training(row),
        "## Loading it",
        language_model_card.loading(row) if talks else _loading(row),
        "## Lineage",
        _lineage(row),
    ]
    return "\n\n".join(parts) + "\n"


def _table_card(version: Version) -> str:
    row, evaluation = version.row, version.evaluation
    summary = evaluation.summary if evaluation else None
    parts = [
        f"# {row.model}, version {row.number}",
        table_model_card.what(row),
        "## Columns",
        table_model_card.columns(row),
        "## Evaluation",
        table_model_card.figures(summary) if summary else "Not evaluated yet.",
        "## Data",
        _data(row),
        table_model_card.cleaning(row),
        "## Training",
        table_model_card.training(row),
        "## Loading it",
        table_model_card.loading(row),
        "## Lineage",
        _lineage(row),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _what(row: VersionRow) -> str:
    shown = [code(label) for label in row.labels[:MAX_LABELS]]
    rest = len(row.labels) - len(shown)
    more = f" and {rest} more, all in `lora_adapters/labels.json`" if rest > 0 else ""
    return (
        f"A text classifier with {len(row.labels)} labels: {', '.join(shown)}{more}.\n"
        f"It is a LoRA adapter for {code(row.base_model)}, trained {row.label}."
    )


def _evaluation(summary: dict[str, Any]) -> str:
    if summary["fine_tuned"].get("bits_per_byte") is not None:
        return language_model_card.figures(summary)
    return _figures(summary)


def _figures(summary: dict[str, Any]) -> str:
    rows = [
        (
            name,
            *(
                number(summary[key].get(figure))
                for figure in ("accuracy", "f1", "precision", "recall")
            ),
        )
        for name, key in _SYSTEMS
        if summary.get(key)
    ]
    low, high = summary["ci95"]
    return (
        f"On {summary['rows']} held-out rows, all systems on the same ones:\n\n"
        f"{table(('', 'accuracy', 'F1 (macro)', 'precision', 'recall'), rows)}\n\n"
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
            code(ref["name"]),
            f"{ref['rows']:,}",
            code(ref["dataset_id"]),
            code(ref["blob"]["sha256"]),
        )
        for use, ref in found
    ]
    split = row.spec["split"]
    shares = f"Split by seed {split['seed']}: {split['validation_fraction']:.0%} for validation" + (
        "." if row.spec.get("test") else f", {split['test_fraction']:.0%} held out for the test."
    )
    return f"{table(('use', 'name', 'rows', 'dataset', 'SHA-256'), rows)}\n\n{shares}"


def _training(row: VersionRow) -> str:
    hyper = row.spec["hyperparameters"]
    lora = hyper["lora"]
    settings = [(name, value) for name, value in hyper.items() if name != "lora"]
    settings += [(f"lora.{name}", _shown(value)) for name, value in lora.items()]
    settings.append(("seed", row.spec["seed"]))
    accuracy = row.validation_accuracy
    validation = "" if accuracy is None else f"; validation accuracy {accuracy:.4f}"
    return (
        f"{row.train_rows:,} rows, {row.trained_tokens:,} tokens, {row.steps:,} steps in "
        f"{row.seconds:.1f} s; final loss {row.final_loss:.4f}{validation}.\n\n"
        f"{table(('setting', 'value'), [(n, code(v)) for n, v in settings])}"
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
        ("job", code(row.job_id)),
        ("version", code(row.id)),
        ("trained on", code(f"{environment['device_name']} ({environment['device']})")),
        ("threads", code(environment["threads"])),
        ("Python", code(environment["python"])),
        ("finetrail", code(environment["code"])),
        *((name, code(release)) for name, release in sorted(environment["packages"].items())),
    ]
    files = [(code(file["path"]), f"{file['size']:,}", code(file["sha256"])) for file in row.files]
    return f"{table(('', ''), facts)}\n\n{table(('file', 'bytes', 'SHA-256'), files)}"


def _shown(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
