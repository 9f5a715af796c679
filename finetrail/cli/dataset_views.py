"""How uploaded data is shown."""

from typing import Any

from finetrail.client import Dataset
from finetrail.client.models import Cleaning
from finetrail.render import Table, facts, size

FORGOTTEN = "(forgotten)"


def datasets(found: list[Dataset]) -> Table:
    rows = [
        (
            each.id,
            each.name or FORGOTTEN,
            each.status,
            each.kind,
            str(each.rows),
            _holds(each),
            size(each.size),
        )
        for each in found
    ]
    return Table(
        ("id", "name", "status", "kind", "rows", "holds", "size"),
        rows,
        empty="There are no datasets.",
    )


def dataset(one: Dataset) -> Table:
    labels = ", ".join(f"{name} ({rows})" for name, rows in sorted(one.labels.items()))
    columns = ", ".join(filter(None, (one.text_column, one.label_column)))
    learned = f"{one.messages}, of which {one.supervised_messages} are learned"
    return facts(
        [
            ("dataset", one.id),
            ("name", one.name or FORGOTTEN),
            ("status", one.status),
            ("message", one.message or ""),
            ("kind", one.kind),
            ("why", one.why),
            ("rows", str(one.rows)),
            ("labels", labels),
            ("messages", learned if one.messages else ""),
            ("duplicates", str(one.duplicate_rows or "")),
            ("contradictions", str(one.conflicting_texts or "")),
            ("columns", f"{columns} ({one.format})".strip()),
            *_table(one),
            ("size", size(one.size)),
            ("sha256", one.sha256),
            *(
                (f"example, {'learned' if each.supervised else 'read'}", each.text)
                for each in one.example
            ),
        ]
    )


def rows(found: list[dict[str, Any]]) -> Table:
    """A text and its label a line, a row of a table a line, or a message of a conversation a line."""
    if found and "values" in found[0]:
        names = list(found[0]["values"])
        return Table(
            ("line", *names, "label"),
            [(str(row["line"]), *_cells(row["values"], names), row["label"]) for row in found],
        )
    if any("messages" in row for row in found):
        return Table(
            ("line", "role", "", "message"), [line for row in found for line in _said(row)]
        )
    return Table(
        ("line", "label", "text"),
        [(str(row["line"]), row["label"], row["text"]) for row in found],
        empty="There are no rows.",
    )


def _said(row: dict[str, Any]) -> list[tuple[str, ...]]:
    names = {"user": "prompt", "assistant": "completion"} if row.get("raw") else {}
    lines = [
        (
            names.get(each["role"], each["role"]),
            "learned" if each["supervised"] else "read",
            "\n".join(filter(None, (each["content"], *map(_call, each.get("tool_calls", []))))),
        )
        for each in row["messages"]
    ]
    lines += [(name, "learned", row[name]) for name in ("chosen", "rejected") if name in row]
    if "completion" in row:
        lines.append(("wanted" if row["desirable"] else "unwanted", "learned", row["completion"]))
    return [("" if at else str(row["line"]), *line) for at, line in enumerate(lines)]


def _call(call: dict[str, str]) -> str:
    return f"{call['name']}({call['arguments']})"


def _table(one: Dataset) -> list[tuple[str, str]]:
    """What the columns of a table are for, and what was cleaned."""
    schema, report = one.table_schema, one.table_report
    if schema is None:
        return []
    told = [("target", f"{schema.target}: {schema.target_why}")]
    told += [(f"{each.role}", f"{each.name}: {each.why}") for each in schema.columns]
    if report is None:
        return told
    told.append(("cleaned", f"{report.cleaned} values"))
    told += [
        (f"line {each.line}", f"{each.column}: {each.was!r} became {_became(each)} ({each.why})")
        for each in report.first
    ]
    told += [("missing", f"{name}: {count} values") for name, count in report.missing.items()]
    told.append(("groups", f"{report.groups}, the largest of {report.largest_group} rows"))
    return told


def _became(each: Cleaning) -> str:
    return "missing" if each.became is None else repr(each.became)


def _cells(values: dict[str, Any], names: list[str]) -> list[str]:
    shown = ("–" if values.get(name) is None else values[name] for name in names)
    return [f"{each:g}" if isinstance(each, float) else str(each) for each in shown]


def _holds(one: Dataset) -> str:
    if one.table_schema is not None:
        return f"{len(one.labels)} classes"
    if one.kind == "classification":
        return f"{len(one.labels)} labels"
    return "" if one.messages is None else f"{one.messages} messages"
