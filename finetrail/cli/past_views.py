"""How the past is shown: the events of a thing, differences, and chains of causes."""

from json import dumps
from typing import Any

from finetrail.client import Event
from finetrail.client.past import Activation, CausalLink, Difference, Why
from finetrail.render import Table, facts, moment

LONGEST_VALUE = 60  # characters; --json has all of it


def told(found: list[Event]) -> Table:
    """Events of one thing, with what they say."""
    rows = [
        (str(each.sequence), moment(each.time), each.type, each.actor, _said(each.data))
        for each in found
    ]
    return Table(("sequence", "time", "event", "by", "what"), rows, empty="There are no events.")


def activations(found: list[Activation]) -> Table:
    rows = [
        (
            str(each.number),
            moment(each.activated_at),
            moment(each.until) or "now",
            each.activated_by,
            str(each.sequence),
        )
        for each in found
    ]
    headings = ("version", "in service from", "until", "by", "sequence")
    return Table(headings, rows, title="In service")


def differences(found: list[Difference]) -> Table:
    rows: list[tuple[str, ...]] = []
    for one in found:
        named = (one.aggregate, one.name, one.change)
        changes = [(each.field, _short(each.before), _short(each.after)) for each in one.fields]
        if one.change == "created":  # nothing stood there before; where it is now says enough
            changes = [change for change in changes if change[0] in {"status", "active_number"}]
        for field, before, after in changes or [("", "", "")]:
            rows.append((*named, field, before, after))
    headings = ("kind", "name", "what", "field", "before", "after")
    return Table(headings, rows, empty="Nothing became different.")


def chain(found: Why) -> Table:
    rows = [_link(each) for each in found.chain]
    headings = ("sequence", "time", "event", "came of", "by", "source")
    return Table(headings, rows, note=found.note or "")


def beginning(found: Why) -> Table:
    began = found.began
    return facts(
        [
            ("began with", _key(began.key_id, began.key_name) or began.actor),
            ("through", began.source),
            ("request", began.request_id or ""),
            ("from", began.address or ""),
        ]
    )


def _link(one: CausalLink) -> tuple[str, ...]:
    event, command = one.event, one.command
    by = _key(command.key_id, command.key_name) or command.actor
    return (
        str(event.sequence),
        moment(event.time),
        event.type,
        command.type or "",
        by,
        command.source,
    )


def _key(key_id: str | None, name: str | None) -> str:
    if key_id is None:
        return ""
    return f"key {key_id} ({name})" if name else f"key {key_id}"


def _said(data: dict[str, Any]) -> str:
    """What is short enough to be read in a line."""
    plain = {
        name: value
        for name, value in data.items()
        if name != "type" and not name.endswith("_id") and not isinstance(value, dict | list)
    }
    return _cut(", ".join(f"{name} {_short(value)}" for name, value in plain.items()))


def _short(value: object) -> str:
    if value is None:
        return ""
    return _cut(value if isinstance(value, str) else dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
