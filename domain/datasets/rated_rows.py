"""Rows of a prompt, an answer, and whether more answers like it are wanted, as KTO learns from."""

from collections.abc import Mapping, Sequence
from typing import Final

from domain.datasets.checks import Columns
from domain.datasets.completion_rows import CompletionRows
from domain.datasets.preferences import RatedCompletion
from domain.datasets.problems import Problems
from domain.datasets.values import ValueChecks, kind_of

LABEL: Final = "label"
_SAID: Final = {"true": True, "1": True, "false": False, "0": False}


class RatedRows:
    at_least = "at least one row with a prompt, its completion and a label of true or false"

    def __init__(
        self, text_column: str | None, label_column: str | None, problems: Problems
    ) -> None:
        self._problems = problems
        self._values = ValueChecks(problems)
        self._rows = CompletionRows(text_column, label_column, problems)

    @property
    def columns(self) -> Columns | None:
        return self._rows.columns

    def begin(self, names: Sequence[str], line: int) -> None:
        self._rows.begin(names, line)

    def take(self, line: int, values: Mapping[str, object]) -> RatedCompletion | None:
        desirable = self._label(values, line)
        found = self._rows.take(line, values)
        if found is None or desirable is None:
            return None
        if len(found.messages) > 1 and any(each.supervised for each in found.messages[:-1]):
            self._problems.add(
                line,
                "several_answers",
                "the completion holds more than one answer, and there is one label",
                "one assistant's message in the completion",
                field=self.columns.label if self.columns else None,
            )
            return None
        if found.messages[-1].tool_calls:
            answer_of_calls(line, self.columns.label if self.columns else "", self._problems)
            return None
        return RatedCompletion(
            line, found.messages[:-1], found.answer, desirable, found.raw, found.tools
        )

    def finish(self) -> None:
        """One good row is enough."""

    def _label(self, values: Mapping[str, object], line: int) -> bool | None:
        expected = "true for an answer that is wanted, false for one that is not"
        key = next((name for name in values if name.casefold() == LABEL), LABEL)
        value = self._values.present(values, key, line, expected)
        if value is None:
            return None
        said = value if isinstance(value, bool) else _SAID.get(str(value).strip().casefold())
        if said is None:
            hint = "; rows whose label says something else are of the kind prompt_completion"
            self._problems.add(
                line,
                "bad_rating",
                f"the label is {kind_of(value)}",
                expected + hint,
                field=key,
            )
        return said


def answer_of_calls(line: int, field: str, problems: Problems) -> None:
    problems.add(
        line,
        "unsupported_tools",
        "the answer that is rated asks tools",
        "an answer in words; prompts may hold calls of tools, the answers to compare may not",
        field=field,
    )
