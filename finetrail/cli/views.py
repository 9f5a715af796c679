"""How each thing is shown: from a value of the client to a table of text."""

from collections.abc import Callable
from typing import Any, TypeVar

from finetrail.cli.comparison import comparison
from finetrail.client import (
    Evaluation,
    Event,
    Link,
    Model,
    Prediction,
    Version,
)
from finetrail.client.models import StepMetrics
from finetrail.render import (
    Table,
    facts,
    moment,
    number,
    percent,
    size,
    write_json,
    write_table,
)

T = TypeVar("T")


def write(value: T, as_json: bool, view: Callable[[T], Table]) -> None:
    """The result of a command, on standard output."""
    if as_json:
        write_json(value)
    else:
        write_table(view(value))


def metrics(found: list[StepMetrics]) -> Table:
    rows = [
        (
            str(each.step),
            number(each.epoch, 2),
            number(each.loss, 4),
            f"{each.learning_rate:.2e}",
            number(each.grad_norm),
            f"{each.tokens_per_s:,.0f}",
        )
        for each in found
    ]
    headings = ("step", "epoch", "loss", "learning rate", "gradient norm", "tokens/s")
    return Table(headings, rows, empty="There are no metrics yet.")


def models(found: list[Model]) -> Table:
    rows = [
        (each.name, each.base_model, str(each.versions), str(each.latest or ""), _active(each))
        for each in found
    ]
    headings = ("name", "base", "versions", "latest", "in service")
    return Table(headings, rows, empty="There are no models.")


def versions(found: list[Version], model: Model) -> Table:
    active = model.active.number if model.active else None
    rows = [
        (
            str(each.number),
            each.label,
            each.status,
            "yes" if each.number == active else "",
            _measured(each.evaluation),
            _verdict(each.evaluation),
            size(each.size),
        )
        for each in found
    ]
    headings = ("version", "label", "status", "in service", "result", "verdict", "size")
    return Table(headings, rows, title=f"{model.name} on {model.base_model}")


def model(one: Model) -> Table:
    return facts(
        [
            ("model", one.name),
            ("in service", _active(one)),
            ("since", moment(one.active.activated_at) if one.active else ""),
            ("by", (one.active.activated_by or "") if one.active else ""),
            ("versions", str(one.versions)),
        ]
    )


def evaluations(found: list[Evaluation]) -> Table:
    rows = [
        (
            each.id,
            each.model,
            str(each.version),
            each.status,
            _measured(each.summary.model_dump()) if each.summary else "",
            each.summary.verdict if each.summary else "",
        )
        for each in found
    ]
    headings = ("id", "model", "version", "status", "result", "verdict")
    return Table(headings, rows, empty="There are no evaluations.")


def evaluation(one: Evaluation) -> Table:
    if one.summary is None:
        return facts(
            [
                ("evaluation", one.id),
                ("of", f"{one.model} version {one.version}"),
                ("status", one.status),
                ("error", f"{one.error.message} ({one.error.code})" if one.error else ""),
            ]
        )
    return comparison(one.summary, f"{one.model} version {one.version}")


def events(found: list[Event]) -> Table:
    rows = [
        (str(each.sequence), moment(each.time), each.type, each.aggregate_id, each.actor)
        for each in found
    ]
    headings = ("sequence", "time", "event", "of", "by")
    return Table(headings, rows, empty="There are no such events.")


def event_line(each: Event) -> str:
    return f"{each.sequence:>7}  {moment(each.time)}  {each.type:<22}  {each.aggregate_id}  {each.actor}"


def records(found: list[dict[str, Any]], empty: str) -> Table:
    """What the client has no type for: one column a field, nested values as they are."""
    if not found:
        return Table((), [], empty=empty)
    headings = tuple(found[0])
    return Table(headings, [tuple(_cell(each.get(name)) for name in headings) for each in found])


def link(one: Link) -> Table:
    return facts([("url", one.url), ("works until", moment(one.expires_at))])


def one_record(found: dict[str, Any]) -> Table:
    return facts([(name, _cell(value)) for name, value in found.items()])


def predictions(found: list[tuple[str, Prediction]]) -> Table:
    return Table((), [(each.label, percent(each.confidence), text) for text, each in found])


def checks(found: list[dict[str, Any]]) -> Table:
    rows = [
        ("ok" if each["ok"] else "WRONG", each["name"], f"{each['detail']} {each['hint']}".strip())
        for each in found
    ]
    return Table(("", "what", "found"), rows)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_cell(each) for each in value)
        case _:
            return str(value)


def _active(one: Model) -> str:
    return f"version {one.active.number}" if one.active else "none"


def _measured(summary: dict[str, Any] | None) -> str:
    """What the verdict is about; the figures of an evaluation that is under way are not there yet."""
    known = summary or {}
    scores = known.get("fine_tuned")
    if not scores:
        return ""
    if known.get("metric") == "bits_per_byte":
        return f"{number(scores['bits_per_byte'])} bits a byte"
    return f"{percent(scores['accuracy'])} right"


def _verdict(summary: dict[str, Any] | None) -> str:
    known = summary or {}
    return str(known.get("verdict") or known.get("status") or "")
