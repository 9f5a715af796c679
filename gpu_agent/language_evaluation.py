"""A language model with its adapter against itself without it, on the held-out conversations, paired."""

import json
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from domain.jobs.spec import JobSpec
from domain.work import (
    EvaluateAssignment,
    EvaluationFinished,
    EvaluationSummary,
    Example,
    Fact,
    Scores,
)
from gpu_agent.base_models import find_base_model, places_for
from gpu_agent.data import read_asked_splits
from gpu_agent.environment import describe, set_up
from gpu_agent.examples import choose_examples, side_by_side
from gpu_agent.language_model import LanguageModel, load_language_model
from gpu_agent.likelihood import row_nats
from gpu_agent.lora import install, read_lora_weights, use
from gpu_agent.outcomes import CheckpointUnreadable, DataUnreadable
from gpu_agent.protocol import ChildInput
from gpu_agent.questions import (
    Question,
    answer_batches,
    find_labels,
    first_token,
    label_scores,
    likeliest,
    questions,
)
from gpu_agent.schedule import debug, log, warning
from gpu_agent.statistics import compare, ratio_interval, verdict_where_less_is_better

ROWS_AT_ONCE = 64  # a stop is obeyed between two lots, so they are small
GENERATED_ROWS = 256  # the share of right ones is then known to 6 points, and more take minutes
GENERATED_SEED = 0
TIMED_PROMPTS = 40  # one at a time; fewer leave the median to chance on a busy machine
WARM_UP_PROMPTS = 3  # the first calls set up kernels and buffers


@dataclass(frozen=True, slots=True)
class Task:
    """The held-out rows, and what is to be found out about them."""

    rows: list[Question]
    labels: dict[str, str]  # as they are told apart, and as they are written; none of free text
    generated: list[int]  # rows to be answered in words


@dataclass(frozen=True, slots=True)
class Measured:
    """One system on all rows."""

    nats: NDArray[np.float64]  # of each row's supervised tokens
    label_scores: NDArray[np.float64]  # (rows, labels): log-likelihoods in nats
    best: list[str]  # the likeliest label of each row; none without labels
    words: dict[int, str]  # by row
    times_ms: list[float]


def evaluate(order: ChildInput, assignment: EvaluateAssignment) -> Iterator[Fact]:
    """Compare the base model with itself under the adapter, on rows that the adapter has not seen.

    Raises:
        WorkFailed: the evaluation cannot be done as it is stated.
    """
    began = time.monotonic()
    spec = assignment.spec
    device = set_up(order.device, assignment.threads or order.threads)
    yield log(f"evaluating on {describe(device).device_name}")
    if order.files.adapter is None:
        raise CheckpointUnreadable("the evaluation was given no adapter")
    files = find_base_model(spec.base_model, places_for(order), assignment.base_model)
    model = load_language_model(files, device)
    install(model)
    adapter = read_lora_weights(order.files.adapter, model)
    task, too_long = prepare(model, spec, order.files.train, order.files.test)
    if too_long:
        yield warning(f"{too_long} held-out rows are too long to be measured and left out")
    kind = f"{len(task.labels)} labels" if task.labels else "answers in free text"
    yield log(
        f"{len(task.rows)} held-out rows, {kind}; {len(task.generated)} are answered in words"
    )

    use(model, None)
    base = yield from measure(model, task, "base")
    use(model, adapter)
    tuned = yield from measure(model, task, "fine-tuned")

    path = order.work_dir / "outputs.jsonl"
    _write_outputs(path, task, base, tuned)
    summary = summarise(task, base, tuned, order.work_dir / "metrics", time.monotonic() - began)
    yield log(_in_words(summary))
    yield EvaluationFinished(summary=summary, outputs_path=str(path))


def prepare(
    model: LanguageModel, spec: JobSpec, train: Path, test: Path | None
) -> tuple[Task, int]:
    """Read what is held out; the second value counts the rows that are too long.

    Raises:
        DataUnreadable: nothing is held out, or nothing that can be measured.
    """
    splits = read_asked_splits(spec, train, test)
    longest = min(spec.hyperparameters.max_length, model.max_tokens)
    rows = questions(model, splits.test, longest)
    if not rows:
        raise DataUnreadable("no row is held out that is short enough, so nothing can be evaluated")
    shuffled = np.random.default_rng(GENERATED_SEED).permutation(len(rows))
    labels = find_labels([*splits.train, *splits.validation, *splits.test])
    task = Task(rows, labels, sorted(shuffled[:GENERATED_ROWS].tolist()))
    return task, len(splits.test) - len(rows)


def measure(model: LanguageModel, task: Task, name: str) -> Generator[Fact, None, Measured]:
    """Measure the model as it is; the facts in between are signs of life."""
    nats = np.empty(len(task.rows))
    scores = np.empty((len(task.rows), len(task.labels)))
    for start in range(0, len(task.rows), ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        rows = task.rows[here]
        nats[here] = row_nats(
            model.network, [row.ids for row in rows], [row.supervised for row in rows]
        )
        if task.labels:
            scores[here] = label_scores(model, rows, task.labels)
        yield debug(f"{name}: {start + len(rows)} of {len(task.rows)} rows read")
    asked = [task.rows[at] for at in task.generated]
    words: dict[int, str] = {}
    for answers in answer_batches(model, asked):
        words |= {task.generated[at]: text for at, text in answers.items()}
        yield debug(f"{name}: {len(words)} of {len(asked)} prompts answered")
    best = likeliest(scores, task.labels) if task.labels else []
    return Measured(nats, scores, best, words, _times_ms(model, task.rows))


def summarise(
    task: Task, base: Measured, tuned: Measured, cache: Path, seconds: float
) -> EvaluationSummary:
    """Put both side by side.

    Where there are labels the verdict is about right ones. Elsewhere words that are almost right
    count like any others, so it is about bits a byte, and right answers are told beside it.
    """
    shown = list(range(len(task.rows))) if task.labels else task.generated
    expected = [_expected(task, at) for at in shown]
    said = [[_answer(task, system, at) for at in shown] for system in (base, tuned)]
    right = [[got == want for got, want in zip(one, expected, strict=True)] for one in said]
    paired = compare(right[0], right[1])
    base_scores, tuned_scores = _scores(task, base, cache), _scores(task, tuned, cache)
    delta = tuned_scores.accuracy - base_scores.accuracy
    bits = np.array([row.answer_bytes for row in task.rows]) * math.log(2)
    interval = ratio_interval(tuned.nats - base.nats, bits)
    return EvaluationSummary(
        rows=len(task.rows),
        metric="accuracy" if task.labels else "bits_per_byte",
        base=base_scores,
        untrained=None,
        fine_tuned=tuned_scores,
        accuracy_delta=delta,
        accuracy_delta_relative=delta / base_scores.accuracy if base_scores.accuracy else None,
        f1_delta=_difference(tuned_scores.f1, base_scores.f1),
        p_value=paired.p_value,
        ci95=paired.ci95 if task.labels else interval,
        bits_per_byte_delta=_difference(tuned_scores.bits_per_byte, base_scores.bits_per_byte),
        only_base_right=paired.only_first,
        only_fine_tuned_right=paired.only_second,
        verdict=paired.verdict if task.labels else verdict_where_less_is_better(interval),
        examples=tuple(
            _example(task.rows[shown[at]], expected[at], said[0][at], said[1][at])
            for at in choose_examples(said[0], said[1])
        ),
        seconds=seconds,
        generated_rows=len(task.generated),
    )


def _scores(task: Task, measured: Measured, cache: Path) -> Scores:
    exact = fmean(measured.words[at] == task.rows[at].in_words for at in task.generated)
    nats = float(measured.nats.sum())
    tokens = sum(sum(row.supervised) for row in task.rows)
    of_labels = None
    if task.labels:
        # Takes seconds to load, and free text needs none of it.
        from gpu_agent.metrics import quality  # noqa: PLC0415

        of_labels = quality(measured.best, [row.expected for row in task.rows], cache)
    return Scores(
        accuracy=of_labels.accuracy if of_labels else exact,
        f1=of_labels.f1 if of_labels else None,
        precision=of_labels.precision if of_labels else None,
        recall=of_labels.recall if of_labels else None,
        latency_ms_p50=median(measured.times_ms),
        latency_ms_mean=fmean(measured.times_ms),
        exact_match=exact,
        perplexity=math.exp(nats / tokens),
        bits_per_byte=nats / math.log(2) / sum(row.answer_bytes for row in task.rows),
    )


def _expected(task: Task, at: int) -> str:
    return task.rows[at].expected if task.labels else task.rows[at].in_words


def _answer(task: Task, measured: Measured, at: int) -> str:
    return measured.best[at] if task.labels else measured.words[at]


def _example(row: Question, expected: str, base: str, tuned: str) -> Example:
    messages = row.conversation.messages[:-1]
    asked = [message.content for message in messages if message.role == "user"]
    return side_by_side(asked[-1] if asked else row.conversation.prompt, expected, base, tuned)


def _times_ms(model: LanguageModel, rows: Sequence[Question]) -> list[float]:
    """Time a prompt alone until the first token of its answer is chosen."""
    for row in rows[:WARM_UP_PROMPTS]:
        first_token(model, row.prompt)
    times_ms = []
    for at in range(TIMED_PROMPTS):
        clock = time.perf_counter()
        first_token(model, rows[at % len(rows)].prompt)
        times_ms.append((time.perf_counter() - clock) * 1000)
    return times_ms


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _write_outputs(path: Path, task: Task, base: Measured, tuned: Measured) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for at, row in enumerate(task.rows):
            line = {
                "line": row.conversation.line,
                "prompt": row.conversation.prompt,
                "expected": row.conversation.answer,
                "bytes": row.answer_bytes,
                "tokens": sum(row.supervised),
                "base": _output(task, base, at),
                "fine_tuned": _output(task, tuned, at),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _output(task: Task, measured: Measured, at: int) -> dict[str, object]:
    output: dict[str, object] = {
        "nats": float(measured.nats[at]),
        "answer": measured.words.get(at),  # null: it was not asked to generate one
    }
    if task.labels:
        output["label"] = measured.best[at]
        likelihoods = measured.label_scores[at].tolist()
        output["log_likelihoods"] = dict(zip(task.labels, likelihoods, strict=True))
    return output


def _in_words(summary: EvaluationSummary) -> str:
    base, tuned = summary.base, summary.fine_tuned
    return (
        f"on {summary.rows} held-out rows: accuracy base {base.accuracy:.4f}, fine-tuned "
        f"{tuned.accuracy:.4f}, p {summary.p_value:.3g}; bits a byte base {base.bits_per_byte:.4f}, "
        f"fine-tuned {tuned.bits_per_byte:.4f}; {summary.metric}: {summary.verdict}"
    )
