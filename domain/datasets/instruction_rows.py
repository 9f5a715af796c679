"""Rows of an instruction, what it is about, and its output, as Alpaca has them."""

from collections.abc import Mapping, Sequence

from domain.datasets.checks import Columns, choose_named, find_column
from domain.datasets.conversations import Conversation, Message
from domain.datasets.problems import Problems
from domain.datasets.values import ValueChecks

INSTRUCTION, INPUT, OUTPUT, SYSTEM = "instruction", "input", "output", "system"


class InstructionRows:
    at_least = "at least one row with an instruction and its output"

    def __init__(
        self, text_column: str | None, label_column: str | None, problems: Problems
    ) -> None:
        self._wanted = (text_column or INSTRUCTION, label_column or OUTPUT)
        self._problems = problems
        self._values = ValueChecks(problems)
        self._input, self._system = INPUT, SYSTEM
        self.columns: Columns | None = None

    def begin(self, names: Sequence[str], line: int) -> None:
        self.columns = choose_named(names, *self._wanted, line, self._problems)
        self._input = find_column(names, [INPUT]) or INPUT
        self._system = find_column(names, [SYSTEM]) or SYSTEM

    def take(self, line: int, values: Mapping[str, object]) -> Conversation | None:
        if self.columns is None:
            return None
        instruction = self._values.filled(values, self.columns.text, line)
        given = self._values.optional(values, self._input, line)
        output = self._values.filled(values, self.columns.label, line)
        system = self._values.optional(values, self._system, line)
        if instruction is None or given is None or output is None or system is None:
            return None
        asked = f"{instruction}\n\n{given}" if given.strip() else instruction
        messages = [Message("user", asked, False), Message("assistant", output, True)]
        if system.strip():
            messages.insert(0, Message("system", system, False))
        return Conversation(line, tuple(messages))

    def finish(self) -> None:
        """One good row is enough."""
