"""The fine-tuned model against its base on the held-out rows, paired row by row."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from sklearn.linear_model import LogisticRegression

from domain.datasets.rows import Row
from domain.work import (
    EvaluateAssignment,
    EvaluationFinished,
    EvaluationSummary,
    Fact,
    Scores,
)
from gpu_agent.base_models import find_base_model, places_for
from gpu_agent.classifier import (
    Base,
    adapter_labels,
    add_lora,
    embeddings,
    load_adapter,
    load_base,
    logits,
)
from gpu_agent.data import Splits, read_splits, tokenise
from gpu_agent.environment import describe, set_up
from gpu_agent.examples import choose_examples, side_by_side
from gpu_agent.metrics import quality
from gpu_agent.outcomes import CheckpointUnreadable, DataUnreadable
from gpu_agent.protocol import ChildInput
from gpu_agent.schedule import log
from gpu_agent.statistics import compare

TIMED_TEXTS = 40  # one at a time; fewer leave the median to chance on a busy machine
WARM_UP_TEXTS = 3  # the first calls set up kernels and buffers

Classify = Callable[[Sequence[str]], list[str]]  # texts to labels


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one system says of every held-out row, and how long one text takes it."""

    labels: list[str]
    times_ms: list[float]


def evaluate(order: ChildInput, assignment: EvaluateAssignment) -> Iterator[Fact]:
    """Compare three systems on rows that none of them has seen.

    The base is the frozen encoder with logistic regression on the training rows; the untrained one
    is the network as it was before its first step.

    Raises:
        WorkFailed: the evaluation cannot be done as it is stated.
    """
    began = time.monotonic()
    spec, labels = assignment.spec, assignment.labels
    device = set_up(order.device, assignment.threads or order.threads)
    yield log(f"evaluating on {describe(device).device_name}")
    files = find_base_model(spec.base_model, places_for(order), assignment.base_model)
    splits = read_splits(spec, order.files.train, order.files.test)
    adapter = _adapter(order, splits, labels)
    loaded = load_base(files, len(labels), spec.seed)
    loaded.network.to(device)
    longest = min(spec.hyperparameters.max_length, loaded.max_tokens)
    texts = [row.text for row in splits.test]

    base = _run(base_classifier(loaded, splits, longest), texts)
    yield log(f"base: frozen embeddings and logistic regression over {len(splits.train)} rows")
    model = add_lora(loaded, files, spec.hyperparameters.lora, spec.seed).to(device)
    network = network_classifier(model, loaded, labels, longest)
    untrained = Outputs(network(texts), [])
    load_adapter(adapter, model)
    fine_tuned = _run(network, texts)

    path = order.work_dir / "outputs.jsonl"
    _write_outputs(path, splits.test, base, untrained, fine_tuned)
    summary = _summary(splits.test, base, untrained, fine_tuned, order.work_dir / "metrics", began)
    yield log(
        f"accuracy on {summary.rows} held-out rows: base {summary.base.accuracy:.4f}, "
        f"fine-tuned {summary.fine_tuned.accuracy:.4f}, p {summary.p_value:.3g}: {summary.verdict}"
    )
    yield EvaluationFinished(summary=summary, outputs_path=str(path))


def base_classifier(base: Base, splits: Splits, longest: int) -> Classify:
    """Fit logistic regression on the frozen encoder's embeddings of the training rows."""

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        tokens = tokenise(base.tokenizer, texts, longest)
        return embeddings(base.encoder, tokens).numpy()

    regression = LogisticRegression(C=10, max_iter=1000, random_state=0)
    regression.fit(embed([row.text for row in splits.train]), [row.label for row in splits.train])
    return lambda texts: [str(label) for label in regression.predict(embed(texts))]


def network_classifier(
    model: PeftModel, base: Base, labels: Sequence[str], longest: int
) -> Classify:
    def classify(texts: Sequence[str]) -> list[str]:
        scores = logits(model, tokenise(base.tokenizer, texts, longest))
        return [labels[at] for at in scores.argmax(dim=1).tolist()]

    return classify


def _adapter(order: ChildInput, splits: Splits, labels: Sequence[str]) -> Path:
    if not splits.test:
        raise DataUnreadable("no row is held out, so nothing can be evaluated")
    if order.files.adapter is None:
        raise CheckpointUnreadable("the evaluation was given no adapter")
    if adapter_labels(order.files.adapter) != tuple(labels):
        raise CheckpointUnreadable("the adapter was trained for other labels")
    return order.files.adapter


def _run(classify: Classify, texts: Sequence[str]) -> Outputs:
    labels = classify(texts)
    for text in texts[:WARM_UP_TEXTS]:
        classify([text])
    times_ms = []
    for at in range(TIMED_TEXTS):
        clock = time.perf_counter()
        classify([texts[at % len(texts)]])
        times_ms.append((time.perf_counter() - clock) * 1000)
    return Outputs(labels, times_ms)


def _summary(
    rows: Sequence[Row],
    base: Outputs,
    untrained: Outputs,
    tuned: Outputs,
    cache: Path,
    began: float,
) -> EvaluationSummary:
    expected = [row.label for row in rows]
    base_scores, tuned_scores = _scores(base, expected, cache), _scores(tuned, expected, cache)
    base_right = [got == label for got, label in zip(base.labels, expected, strict=True)]
    tuned_right = [got == label for got, label in zip(tuned.labels, expected, strict=True)]
    paired = compare(base_right, tuned_right)
    delta = tuned_scores.accuracy - base_scores.accuracy
    return EvaluationSummary(
        rows=len(rows),
        base=base_scores,
        untrained=_scores(untrained, expected, cache),
        fine_tuned=tuned_scores,
        accuracy_delta=delta,
        accuracy_delta_relative=delta / base_scores.accuracy if base_scores.accuracy else None,
        f1_delta=_difference(tuned_scores.f1, base_scores.f1),
        p_value=paired.p_value,
        ci95=paired.ci95,
        only_base_right=paired.only_first,
        only_fine_tuned_right=paired.only_second,
        verdict=paired.verdict,
        examples=tuple(
            side_by_side(rows[at].text, rows[at].label, base.labels[at], tuned.labels[at])
            for at in choose_examples(base.labels, tuned.labels)
        ),
        seconds=time.monotonic() - began,
    )


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _scores(outputs: Outputs, expected: Sequence[str], cache: Path) -> Scores:
    measured = quality(outputs.labels, expected, cache)
    return Scores(
        accuracy=measured.accuracy,
        f1=measured.f1,
        precision=measured.precision,
        recall=measured.recall,
        latency_ms_p50=median(outputs.times_ms) if outputs.times_ms else None,
        latency_ms_mean=fmean(outputs.times_ms) if outputs.times_ms else None,
    )


def _write_outputs(
    path: Path, rows: Sequence[Row], base: Outputs, untrained: Outputs, tuned: Outputs
) -> None:
    said = zip(rows, base.labels, untrained.labels, tuned.labels, strict=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row, by_base, by_untrained, by_tuned in said:
            line = {
                "line": row.line,
                "text": row.text,
                "expected": row.label,
                "base": by_base,
                "untrained": by_untrained,
                "fine_tuned": by_tuned,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
