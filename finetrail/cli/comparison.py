"""Base against fine-tuned as a table, with what may be concluded from it."""

from dataclasses import replace

from finetrail.client import EvaluationSummary
from finetrail.client.models import Majority, Scores
from finetrail.render import Table, change, number, percent, points


def comparison(summary: EvaluationSummary, what: str) -> Table:
    generated = summary.generated_rows
    where = f"{what}, on {summary.rows} held-out rows"
    if generated is not None and generated < summary.rows:
        where += f"; {generated} of them answered"
    if summary.majority is not None:
        table = _table_comparison(summary, summary.majority)
    elif summary.of_language_model:
        table = _language_comparison(summary)
    else:
        table = _comparison(summary)
    return replace(table, title=where)


def _comparison(summary: EvaluationSummary) -> Table:
    rows = [
        *([_scores("untrained", summary.untrained)] if summary.untrained else []),
        _scores("base", summary.base),
        _scores("fine-tuned", summary.fine_tuned),
        ("difference", points(summary.accuracy_delta), points(summary.f1_delta), "", "", ""),
    ]
    return Table(
        ("", "accuracy", "F1", "precision", "recall", "time a text"),
        rows,
        note=f"{_concluded(summary)}. Base is the frozen encoder with logistic regression.",
    )


def _table_comparison(summary: EvaluationSummary, majority: Majority) -> Table:
    regression = summary.base != majority.scores  # which is evaluated itself otherwise
    rows = [
        (*_scores(f"always {majority.label}", majority.scores), ""),
        *([(*_scores("base", summary.base), _loss(summary.base))] if regression else []),
        (*_scores("trained", summary.fine_tuned), _loss(summary.fine_tuned)),
        *(
            (
                one.label,
                f"{one.rows} rows",
                number(one.f1),
                number(one.precision),
                number(one.recall),
                "",
                "",
            )
            for one in summary.by_class
        ),
    ]
    base = "logistic regression" if regression else "the commonest class"
    beside = f" Beside the commonest class: p = {majority.p_value:.3g}, {majority.verdict}."
    return Table(
        ("", "accuracy", "F1", "precision", "recall", "time a row", "loss"),
        rows,
        note=f"{_concluded(summary)}. Base is {base}.{beside if regression else ''}",
    )


def _language_comparison(summary: EvaluationSummary) -> Table:
    base, tuned = summary.base, summary.fine_tuned
    labelled = tuned.f1 is not None
    rows = [
        (
            name,
            *([percent(scores.accuracy), number(scores.f1)] if labelled else []),
            percent(scores.exact_match),
            number(scores.perplexity, 2),
            number(scores.bits_per_byte),
            _latency(scores),
        )
        for name, scores in (("base", base), ("fine-tuned", tuned))
    ]
    exact = None
    if base.exact_match is not None and tuned.exact_match is not None:
        exact = tuned.exact_match - base.exact_match
    difference = (
        "difference",
        *([points(summary.accuracy_delta), change(summary.f1_delta)] if labelled else []),
        points(exact),
        "",
        change(summary.bits_per_byte_delta),
        "",
    )
    return Table(
        (
            "",
            *(["accuracy", "F1"] if labelled else []),
            "exact answers",
            "perplexity",
            "bits a byte",
            "first token",
        ),
        [*rows, difference],
        note=f"{_concluded(summary)}. Base is the same model without the adapter.",
    )


def _concluded(summary: EvaluationSummary) -> str:
    low, high = summary.ci95
    if summary.metric == "bits_per_byte":
        ends = f"{change(low)} to {change(high)} bits a byte, less is better"
        return (
            f"95 % interval of the difference: {ends}: {summary.verdict}; "
            f"right answers differ with p = {summary.p_value:.3g}"
        )
    ends = f"{points(low)} to {points(high)} points"
    return f"95 % interval of the difference: {ends}, p = {summary.p_value:.3g}: {summary.verdict}"


def _scores(name: str, scores: Scores) -> tuple[str, ...]:
    return (
        name,
        percent(scores.accuracy),
        number(scores.f1),
        number(scores.precision),
        number(scores.recall),
        _latency(scores),
    )


def _loss(scores: Scores) -> str:
    return "" if scores.loss is None else number(scores.loss)


def _latency(scores: Scores) -> str:
    return "" if scores.latency_ms_p50 is None else f"{scores.latency_ms_p50:.1f} ms"
