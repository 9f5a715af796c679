"""What a model card says of a model of a table."""

import json
from typing import Any, Final

from domain.jobs.tabular import GRADIENT_BOOSTING, MLP, TAKEN, flat
from gateway.markdown import code, number, table
from projections.model_versions import VersionRow

_FIGURES: Final = (
    ("accuracy", "accuracy"),
    ("F1 (macro)", "f1"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("loss", "loss"),
)
_REASONS: Final = {
    "blanks": "blanks around it were dropped",
    "spelling": "spelled as most of its kind",
    "decimal_comma": "a decimal comma was read as a point",
    "unreadable": "no number; it counts as missing",
    "missing": "nothing stands there",
    "unknown": "a category that training does not know; it counts as missing",
}
_FEATURES: Final = """\
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

described = json.loads(Path("model/model.json").read_text())
schema = json.loads(Path("model/schema.json").read_text())
labels = json.loads(Path("model/labels.json").read_text())
weights = load_file("model/model.safetensors")


def features(row):
    found = []
    for column in schema["columns"]:
        value = row.get(column["name"])
        if column["role"] == "numeric":
            known = described["numeric"][column["name"]]
            value = known["median"] if value is None else value
            found.append((value - known["mean"]) / known["scale"])
        elif column["role"] == "categorical":
            found += [float(value == category) for category in column["categories"]]
    return np.array(found)


"""
_REGRESSION: Final = """\
def scores(x):
    return weights["weight"] @ x + weights["bias"]
"""
_PERCEPTRON: Final = """\
def scores(x):
    for layer in ("0", "2"):
        x = np.maximum(weights[f"{layer}.weight"] @ x + weights[f"{layer}.bias"], 0)
    return weights["4.weight"] @ x + weights["4.bias"]
"""
_TREES: Final = """\
def scores(x):
    found = weights["baseline"].copy()
    for tree, start in enumerate(weights["start"][:-1]):
        node = start
        while not weights["leaf"][node]:
            smaller = x[weights["feature"][node]] <= weights["threshold"][node]
            node = start + weights["left" if smaller else "right"][node]
        found[tree % len(found)] += weights["value"][node]
    return found
"""


def what(row: VersionRow) -> str:
    schema = row.spec["train"]["table"]
    classes = ", ".join(code(label) for label in row.labels)
    return (
        f"A model of a table: it tells {code(schema['target'])} ({classes}) from "
        f"{', '.join(code(column['name']) for column in _inputs(schema))}.\n"
        f"It is of the family {code(row.base_model)}, trained {row.label}."
    )


def columns(row: VersionRow) -> str:
    schema = row.spec["train"]["table"]
    rows = [(code(schema["target"]), "target", schema["target_why"], "")]
    rows += [
        (
            code(column["name"]),
            column["role"],
            column["why"],
            ", ".join(code(category) for category in column["categories"]),
        )
        for column in schema["columns"]
    ]
    return (
        f"{table(('column', 'use', 'why', 'categories'), rows)}\n\n"
        "A missing number takes the median of the training rows. A missing category, and one that "
        "training has not seen, is none of those above. Blanks around a category and its case say "
        "nothing."
    )


def cleaning(row: VersionRow) -> str:
    counts = row.spec["train"].get("cleaned")
    if counts is None:
        return ""
    groups = (
        f"\n\nThe rows stand in {counts['groups']:,} groups, the largest of "
        f"{counts['largest_group']:,} rows: rows with equal inputs, or with one value of a column "
        "that groups. None of them is parted between training, validation and test."
    )
    if not counts["cleaned"]:
        return f"No value had to be cleaned.{groups}"
    rows = [
        (_REASONS.get(reason, reason), f"{times:,}")
        for reason, times in counts["by_reason"].items()
    ]
    missing = ", ".join(f"{code(name)} {times:,}" for name, times in counts["missing"].items())
    without = f"\n\nMissing values by column: {missing}." if missing else ""
    return (
        f"{counts['cleaned']:,} values are read otherwise than they stand in the file:\n\n"
        f"{table(('why', 'values'), rows)}{without}{groups}"
    )


def figures(summary: dict[str, Any]) -> str:
    majority = summary["majority"]
    systems = [("trained", summary["fine_tuned"])]
    if summary["base"] != majority["scores"]:
        systems.insert(0, ("base: logistic regression", summary["base"]))
    systems.insert(0, (f"always {code(majority['label'])}", majority["scores"]))
    rows = [
        (name, *(number(scores.get(figure)) for _, figure in _FIGURES)) for name, scores in systems
    ]
    classes = [
        (
            code(one["label"]),
            *(number(one[figure]) for figure in ("precision", "recall", "f1")),
            f"{one['rows']:,}",
        )
        for one in summary["by_class"]
    ]
    return (
        f"On {summary['rows']} held-out rows, all systems on the same ones; the loss is in nats a "
        f"row:\n\n{table(('', *(title for title, _ in _FIGURES)), rows)}\n\n"
        f"{_verdict('the base', summary['accuracy_delta'], summary)}\n"
        f"{_beside(summary)}\n\n"
        f"Class by class:\n\n{table(('class', 'precision', 'recall', 'F1', 'rows'), classes)}"
    )


def _beside(summary: dict[str, Any]) -> str:
    majority = summary["majority"]
    delta = summary["fine_tuned"]["accuracy"] - majority["scores"]["accuracy"]
    return _verdict("the commonest class", delta, majority)


def _verdict(other: str, delta: float, found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return (
        f"Accuracy of trained minus {other}: {delta:+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}] "
        f"(paired bootstrap), p = {found['p_value']:.4g} (exact McNemar test): "
        f"**{found['verdict']}**."
    )


def training(row: VersionRow) -> str:
    taken = TAKEN.get(row.base_model, frozenset())
    values = flat(row.spec["hyperparameters"])
    settings = [(name, code(values[name])) for name in values if name in taken]
    settings.append(("seed", code(row.spec["seed"])))
    accuracy = row.validation_accuracy
    validation = "" if accuracy is None else f"; validation accuracy {accuracy:.4f}"
    return (
        f"{row.train_rows:,} rows, {row.steps:,} steps in {row.seconds:.2f} s; final loss "
        f"{row.final_loss:.4f}{validation}.\n\n{table(('setting', 'value'), settings)}"
    )


def loading(row: VersionRow) -> str:
    schema = row.spec["train"]["table"]
    scores = {GRADIENT_BOOSTING: _TREES, MLP: _PERCEPTRON}.get(row.base_model, _REGRESSION)
    asked = {column["name"]: _example(column) for column in _inputs(schema)}
    return (
        "With numpy and safetensors, and without Finetrail:\n\n"
        "```python\n"
        f"{_FEATURES}{scores}\n\n"
        f"row = {_python(asked)}\n"
        "found = scores(features(row))\n"
        "found = np.exp(np.array([0, *found]) if len(found) == 1 else found)\n"
        "print(dict(zip(labels, (found / found.sum()).round(6).tolist())))\n"
        "```"
    )


def _inputs(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in schema["columns"] if one["role"] in {"numeric", "categorical"}]


def _example(column: dict[str, Any]) -> object:
    return None if column["role"] == "numeric" else column["categories"][0]


def _python(row: dict[str, object]) -> str:
    """A literal on one line, in ASCII, whatever the columns are called."""
    pairs = (f"{json.dumps(name)}: {_literal(value)}" for name, value in row.items())
    return "{" + ", ".join(pairs) + "}"


def _literal(value: object) -> str:
    return "None" if value is None else json.dumps(value)
