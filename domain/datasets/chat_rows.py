"""Rows of a whole conversation, under one key: in OpenAI's words, or in those of ShareGPT."""

from collections.abc import Mapping, Sequence

from domain.datasets.chat_messages import MessageChecks, Said
from domain.datasets.checks import Columns, find_column, missing_column
from domain.datasets.conversations import Conversation, Message
from domain.datasets.problems import Problems
from domain.datasets.values import ValueChecks

MESSAGES = "messages"
CONVERSATIONS = "conversations"
SYSTEM = "system"  # of a row in the words of ShareGPT


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
        found = find_column(names, [key] if key else [MESSAGES, CONVERSATIONS])
        if found is None:
            missing_column(names, key or MESSAGES, MESSAGES, line, self._problems)
        else:
            self.columns = Columns(found, "")

    def take(self, line: int, values: Mapping[str, object]) -> Conversation | None:
        if self.columns is None:
            return None
        tools = self._messages.tools(values, line)
        key = self.columns.text
        value = self._values.present(values, key, line, "an array of messages")
        said = None if value is None else self._messages.read(value, line, key)
        if said is None or tools is None:
            return None
        system = self._system(values, line)
        return None if system is None else self._conversation([*system, *said], line, tools)

    def finish(self) -> None:
        """One good conversation is enough."""

    def _conversation(
        self, said: Sequence[Said], line: int, tools: tuple[str, ...]
    ) -> Conversation | None:
        key = self.columns.text if self.columns else MESSAGES
        return self._messages.conversation(said, line, key, tools)

    def _system(self, values: Mapping[str, object], line: int) -> list[Said] | None:
        """What ShareGPT's rows may say beside the conversation; None when it is wrong."""
        if self.columns is None or self.columns.text.casefold() != CONVERSATIONS:
            return []
        told = self._values.optional(values, SYSTEM, line)
        if told is None:
            return None
        return [Said(SYSTEM, Message("system", told, supervised=False))] if told.strip() else []
