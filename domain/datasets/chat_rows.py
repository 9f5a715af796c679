"""Rows of a whole conversation, under one key."""

from collections.abc import Mapping, Sequence

from domain.datasets.chat_messages import MessageChecks
from domain.datasets.checks import Columns, find_column, missing_column
from domain.datasets.conversations import Conversation
from domain.datasets.problems import Problems
from domain.datasets.values import ValueChecks

MESSAGES = "messages"
_TOOLS = ("tools", "functions")  # of the row


class ChatRows:
    at_least = "at least one row with a conversation"

    def __init__(
        self, messages_column: str | None, answer_column: str | None, problems: Problems
    ) -> None:
        self._chosen = (messages_column, answer_column)
        self._problems = problems
        self._values = ValueChecks(problems)
        self._messages = MessageChecks(problems, self._values)
        self.columns: Columns | None = None

    def begin(self, names: Sequence[str], line: int) -> None:
        key, answer = self._chosen
        if answer:
            self._problems.stop(
                line,
                "chat_has_no_label",
                "the answers of a conversation stand among its messages, not in a column",
                "no label_column (CLI: --label) with the kind chat",
                field=answer,
            )
            return
        found = find_column(names, [key or MESSAGES])
        if found is None:
            missing_column(names, key or MESSAGES, MESSAGES, line, self._problems)
        else:
            self.columns = Columns(found, "")

    def take(self, line: int, values: Mapping[str, object]) -> Conversation | None:
        if self.columns is None or self._has_tools(values, line):
            return None
        key = self.columns.text
        value = self._values.present(values, key, line, "an array of messages")
        said = None if value is None else self._messages.read(value, line, key)
        return None if said is None else self._messages.conversation(said, line, key)

    def finish(self) -> None:
        """One good conversation is enough."""

    def _has_tools(self, values: Mapping[str, object], line: int) -> bool:
        key = next((key for key in _TOOLS if values.get(key)), None)
        if key is not None:
            self._problems.add(
                line,
                "unsupported_tools",
                f"the row has {key}",
                "conversations of text alone; tools and functions are not supported",
                field=key,
            )
        return key is not None
