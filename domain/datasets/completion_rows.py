"""Rows of a prompt and what comes after it: texts to be joined as they stand, or messages."""

from collections.abc import Mapping, Sequence

from domain.datasets.chat_messages import MessageChecks, unsupervised
from domain.datasets.checks import Columns, choose_named
from domain.datasets.conversations import Conversation, Message
from domain.datasets.problems import Problems
from domain.datasets.values import ValueChecks

PROMPT, COMPLETION = "prompt", "completion"


class CompletionRows:
    at_least = "at least one row with a prompt and its completion"

    def __init__(
        self, text_column: str | None, label_column: str | None, problems: Problems
    ) -> None:
        self._wanted = (text_column or PROMPT, label_column or COMPLETION)
        self._problems = problems
        self._values = ValueChecks(problems)
        self._messages = MessageChecks(problems, self._values)
        self.columns: Columns | None = None

    def begin(self, names: Sequence[str], line: int) -> None:
        self.columns = choose_named(names, *self._wanted, line, self._problems)

    def take(self, line: int, values: Mapping[str, object]) -> Conversation | None:
        if self.columns is None:
            return None
        prompt, completion = self.columns.text, self.columns.label
        if isinstance(values.get(prompt), list):
            return self._chat(values, prompt, completion, line)
        asked = self._values.filled(values, prompt, line)
        answer = self._values.filled(values, completion, line)
        if asked is None or answer is None:
            return None
        messages = (Message("user", asked, False), Message("assistant", answer, True))
        return Conversation(line, messages, raw=True)

    def finish(self) -> None:
        """One good row is enough."""

    def _chat(
        self, values: Mapping[str, object], prompt: str, completion: str, line: int
    ) -> Conversation | None:
        """Both as messages; only what the completion says is learned."""
        asked = self._messages.read(values[prompt], line, prompt)
        value = self._values.present(values, completion, line, "an array of messages")
        answers = None if value is None else self._messages.read(value, line, completion)
        tools = self._messages.tools(values, line)
        if asked is None or answers is None or tools is None:
            return None
        said = [*unsupervised(asked), *answers]
        return self._messages.conversation(said, line, completion, tools)
