"""A table read for the first time: what its columns are for is found, and what cannot be is refused."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.datasets.cells import Spellings, category_key, cell_text, is_cell
from domain.datasets.checks import (
    MAX_LABEL_CHARS,
    UNIQUE_FROM_ROWS,
    Columns,
    find_column,
    missing_column,
)
from domain.datasets.problems import Problems, is_name, shown
from domain.datasets.table_roles import ColumnFacts, identifier_role, role_of, target_of
from domain.datasets.tables import (
    MAX_CATEGORIES,
    MAX_CLASS_BYTES,
    MAX_CLASSES,
    MAX_COLUMNS,
    MAX_SCHEMA_BYTES,
    MIN_ROWS,
    SHIPPED,
    ColumnRole,
    ShippedTable,
    TableChoice,
    TableColumn,
    TableSchema,
)
from domain.datasets.values import kind_of

CHOSEN: Final = "chosen"
AT_LEAST: Final = f"at least {MIN_ROWS} rows with a target and with what tells it"
_ROLES: Final[tuple[ColumnRole, ...]] = ("numeric", "categorical", "group", "ignored")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as training reads it; while the columns are still being told apart, only its line."""

    line: int  # physical line where the row starts, from 1
    values: Mapping[str, float | str | None]  # of the inputs; None is missing
    label: str
    groups: tuple[str, ...]  # values of the group columns; an empty one groups nothing


class TableScan:
    """Counts what stands in each column; `schema` is there once the file was read and is good."""

    at_least = AT_LEAST

    def __init__(self, choice: TableChoice, problems: Problems, *, decimal_comma: bool) -> None:
        self._choice = choice
        self._problems = problems
        self._decimal_comma = decimal_comma
        self._roles: dict[str, tuple[ColumnRole, str]] = {}  # that were chosen
        self._why = CHOSEN  # of the target
        self._facts: dict[str, ColumnFacts] = {}
        self._target: ColumnFacts | None = None
        self._rows = 0
        self.columns: Columns | None = None
        self.labels: dict[str, int] = {}
        self.schema: TableSchema | None = None

    @property
    def _shipped(self) -> ShippedTable | None:
        return SHIPPED[self._choice.shipped] if self._choice.shipped else None

    def begin(self, names: Sequence[str], line: int) -> None:
        named = [name for name in names if is_name(name)]
        if len(named) < 2 or len(named) > MAX_COLUMNS:
            what = f"the table has {len(named)} columns with a name"
            self._stop(line, "bad_header", what, f"2 to {MAX_COLUMNS} named columns")
            return
        target = self._find_target(named, line)
        self._find_roles(named, target, line)
        if self._problems.stopped() or target is None:
            return
        self._target = ColumnFacts(target, spellings=Spellings(MAX_CLASSES))
        self._facts = {name: ColumnFacts(name) for name in named if name != target}
        self.columns = Columns("", target)

    def take(self, line: int, values: Mapping[str, object]) -> TableRow | None:
        if self._target is None:
            return None
        if not cells_are_plain(values, line, self._problems):
            return None
        label = cell_text(values.get(self._target.name)).strip()
        if not check_label(label, line, self._target.name, self._problems):
            return None
        self._target.add(label, decimal_comma=self._decimal_comma)
        for name, facts in self._facts.items():
            facts.add(cell_text(values.get(name)), decimal_comma=self._decimal_comma)
        self._rows += 1
        return TableRow(line, {}, label, ())

    def finish(self) -> None:
        if self._target is None or self.columns is None:
            return
        if self._rows < MIN_ROWS:
            self._stop(1, "too_few_rows", f"the table has {self._rows} rows", AT_LEAST)
            return
        spellings = self._spellings()
        classes = self._classes(self._target, spellings)
        columns = tuple(self._column(facts) for facts in self._facts.values())
        if self._problems.stopped():
            return
        schema = TableSchema(
            target=self._target.name,
            target_why=self._why,
            classes=tuple(sorted(classes)),
            spellings=spellings,
            columns=columns,
        )
        self._judge(schema)
        if not self._problems.stopped():
            self.labels.update(sorted(classes.items()))
            self.schema = schema

    def _find_target(self, names: Sequence[str], line: int) -> str | None:
        wanted = self._choice.target or (self._shipped.target if self._shipped else None)
        if wanted is None:
            free = [name for name in names if name not in self._named_inputs(names)]
            found, self._why = target_of(free or names)
            return found
        found_target = find_column(names, [wanted])
        if found_target is None:
            missing_column(names, wanted, "the target", line, self._problems)
        elif self._choice.target is None:
            self._why = f"of the schema {self._choice.shipped}"
        return found_target

    def _named_inputs(self, names: Sequence[str]) -> set[str | None]:
        wanted = (name for role in _ROLES for name in self._wanted(role))
        return {find_column(names, [name]) for name in wanted}

    def _wanted(self, role: ColumnRole) -> tuple[str, ...]:
        chosen: tuple[str, ...] = getattr(self._choice, role)
        shipped = self._shipped
        if shipped and role in {"numeric", "categorical"}:
            chosen += shipped.numeric if role == "numeric" else shipped.categorical
        return chosen

    def _find_roles(self, names: Sequence[str], target: str | None, line: int) -> None:
        for role in _ROLES:
            for wanted in self._wanted(role):
                found = find_column(names, [wanted])
                if found is None:
                    missing_column(names, wanted, f"the {role} columns", line, self._problems)
                elif found == target or self._roles.get(found, (role, ""))[0] != role:
                    other = "the target" if found == target else self._roles[found][0]
                    what = f"{shown(found)} is named as {role} and as {other}"
                    self._stop(line, "same_column", what, "one use for each column", found)
                else:
                    chosen = wanted in getattr(self._choice, role)
                    why = CHOSEN if chosen else f"of the schema {self._choice.shipped}"
                    self._roles[found] = (role, why)

    def _column(self, facts: ColumnFacts) -> TableColumn:
        role, why = self._roles.get(facts.name) or self._told(facts)
        if role == "numeric" and facts.valued and 2 * facts.numbers < facts.valued:
            self._stop(
                1,
                "not_numeric",
                f"{facts.valued - facts.numbers} of {facts.valued} values of {shown(facts.name)}"
                " are no numbers",
                "a column of numbers; a column of names is categorical",
                facts.name,
            )
        if role == "categorical" and facts.spellings.too_many:
            self._stop(
                1,
                "too_many_categories",
                f"{shown(facts.name)} holds more than {MAX_CATEGORIES} different values",
                f"at most {MAX_CATEGORIES} categories; leave the column out with ignored",
                facts.name,
            )
        names = facts.spellings.names().values() if role == "categorical" else ()
        return TableColumn(name=facts.name, role=role, why=why, categories=tuple(sorted(names)))

    def _told(self, facts: ColumnFacts) -> tuple[ColumnRole, str]:
        if self._shipped is None:
            return role_of(facts)
        if facts.is_identifier:
            return identifier_role(facts)
        return "ignored", f"not of the schema {self._choice.shipped}"

    def _spellings(self) -> dict[str, str]:
        """Further names of the classes: only those of a shipped schema, each with its class."""
        return dict(self._shipped.spellings) if self._shipped else {}

    def _classes(self, target: ColumnFacts, spellings: Mapping[str, str]) -> dict[str, int]:
        if target.spellings.too_many:
            self._stop(
                1,
                "too_many_labels",
                f"{shown(target.name)} holds more than {MAX_CLASSES} different values"
                f"{_numbers_hint(target)}; is it the right column?",
                f"at most {MAX_CLASSES} classes, each of which stands in several rows",
                target.name,
            )
            return {}
        names, rows = target.spellings.names(), target.spellings.rows()
        own = {category_key(name): name for name in spellings.values()}
        classes: dict[str, int] = {}
        for key, name in names.items():
            known = spellings.get(key) or own.get(key) or name
            classes[known] = classes.get(known, 0) + rows[key]
        return classes

    def _judge(self, schema: TableSchema) -> None:
        target, classes = schema.target, schema.classes
        if len(classes) == 1:
            what = f"every row has the target {shown(classes[0])}"
            self._stop(1, "one_label", what, "at least two classes", target)
        elif self._rows >= UNIQUE_FROM_ROWS and len(classes) * 10 > self._rows * 9:
            what = f"{self._rows} rows have {len(classes)} different targets"
            self._stop(1, "labels_hardly_repeat", what, "classes that repeat", target)
        elif json_bytes(classes) > MAX_CLASS_BYTES:
            what = f"the names of the classes take more than {MAX_CLASS_BYTES:,} bytes"
            self._stop(1, "labels_too_large", what, "shorter names of classes", target)
        elif not schema.inputs:
            self._stop(1, "no_inputs", f"no column tells anything: {_listed(schema)}", AT_LEAST)
        elif len(schema.model_dump_json().encode()) > MAX_SCHEMA_BYTES:
            self._stop(
                1,
                "table_too_wide",
                f"the columns and their categories take more than {MAX_SCHEMA_BYTES:,} bytes",
                "fewer columns, shorter names, or columns of categories named in ignored",
            )

    def _stop(
        self, line: int, code: str, message: str, expected: str, field: str | None = None
    ) -> None:
        self._problems.stop(line, code, message, expected, field=field)


def check_label(label: str, line: int, column: str, problems: Problems) -> bool:
    """Tell whether this can be the name of a class, and say so if it cannot."""
    if label and len(label) <= MAX_LABEL_CHARS and "\n" not in label and "\r" not in label:
        return True
    if not label:
        code, message = "empty_label", "the target is empty"
    elif len(label) > MAX_LABEL_CHARS:
        code, message = "label_too_long", f"the target has {len(label):,} characters"
    else:
        code, message = "label_line_break", "the target goes over more than one line"
    expected = f"the name of a class, on one line, of at most {MAX_LABEL_CHARS} characters"
    problems.add(line, code, message, expected, field=column)
    return False


def cells_are_plain(values: Mapping[str, object], line: int, problems: Problems) -> bool:
    """Tell whether a row of JSON is flat, as a table is, and say where it is not."""
    nested = [name for name, value in values.items() if not is_cell(value)]
    for name in nested:
        expected = "a number, a string, true, false or null"
        what = f"the value is {kind_of(values[name])}"
        problems.add(line, "wrong_type", what, expected, field=name)
    return not nested


def json_bytes(names: Iterable[str]) -> int:
    return len(json.dumps(list(names), ensure_ascii=False).encode())


def _numbers_hint(facts: ColumnFacts) -> str:
    numbers = facts.valued == facts.numbers
    return ", and they are numbers, which this method cannot learn" if numbers else ""


def _listed(schema: TableSchema) -> str:
    listed = [f"{shown(column.name)}: {column.why}" for column in schema.columns]
    return "; ".join(listed[:10])
