"""Messages to a conversation: who may say what, in which order, and which answers are learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from domain.datasets.conversations import Conversation, Message, Role
from domain.datasets.problems import Problems, shown
from domain.datasets.values import Number, ValueChecks, kind_of

MAX_MESSAGES = 1000  # of a conversation; with a few tokens each it is longer than any context
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # what newer chat interfaces call it
    "user": "user",
    "assistant": "assistant",
}
_TOOL_ROLES = ("tool", "function", "ipython")
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")
_TEXT_ONLY = "messages of text; tools and functions, images, audio and files are not supported"
_WEIGHTS = {"0": False, "0.0": False, "1": True, "1.0": True}
_PART = '{"type": "text", "text": "…"}'


@dataclass(frozen=True, slots=True)
class Said:
    """A message and where it stands in its row, such as ``messages[2]``."""

    at: str
    message: Message


class MessageChecks:
    def __init__(self, problems: Problems, values: ValueChecks) -> None:
        self._problems = problems
        self._values = values

    def read(self, value: object, line: int, field: str) -> list[Said] | None:
        """Every message of an array by itself; None when one of them is wrong."""
        if not isinstance(value, list):
            self._values.wrong_type(value, line, field, "an array of messages")
            return None
        if len(value) > MAX_MESSAGES:
            self._problems.add(
                line,
                "too_many_messages",
                f"the conversation has {len(value):,} messages",
                f"at most {MAX_MESSAGES:,} messages; part it into several rows",
                field=field,
            )
            return None
        read = [self._message(each, line, f"{field}[{index}]") for index, each in enumerate(value)]
        said = [each for each in read if each is not None]
        return said if len(said) == len(value) else None

    def conversation(self, said: Sequence[Said], line: int, field: str) -> Conversation | None:
        """Messages in their order; what follows the last supervised answer is left out."""
        if not said:
            self._problems.add(
                line,
                "no_messages",
                "the conversation has no messages",
                "at least a user's message and the assistant's answer",
                field=field,
            )
            return None
        if self._order_is_wrong(said, line):
            return None
        messages = [each.message for each in said]
        while messages and not messages[-1].supervised:
            messages.pop()  # it comes after all that is learned, so it changes nothing
        if not messages:
            self._problems.add(
                line,
                "nothing_supervised",
                "no answer is to be learned: every assistant's message has the weight 0",
                "at least one assistant's message with the weight 1, or with none",
                field=field,
            )
            return None
        return Conversation(line, tuple(messages))

    def _message(self, value: object, line: int, at: str) -> Said | None:
        if not isinstance(value, dict):
            self._values.wrong_type(
                value, line, at, 'an object, such as {"role": "user", "content": "…"}'
            )
            return None
        if self._asks_for_tools(value, line, at):
            return None
        role = self._role(value, line, at)
        content = self._content(value, line, at)
        if role is None or content is None:
            return None
        supervised = self._supervised(value, role, line, at)
        return None if supervised is None else Said(at, Message(role, content, supervised))

    def _asks_for_tools(self, value: dict[str, object], line: int, at: str) -> bool:
        role = value.get("role")
        key = next((key for key in _TOOL_KEYS if value.get(key)), None)
        if key is None and role not in _TOOL_ROLES:
            return False
        what = f"the message has {shown(key)}" if key else f"the role is {shown(str(role))}"
        self._problems.add(
            line, "unsupported_tools", what, _TEXT_ONLY, field=f"{at}.{key or 'role'}"
        )
        return True

    def _role(self, value: dict[str, object], line: int, at: str) -> Role | None:
        told = self._values.text(value, "role", line, at=f"{at}.")
        if told is not None and told not in _ROLES:
            self._problems.add(
                line,
                "unknown_role",
                f"the role is {shown(told)}",
                "system (or developer), user or assistant",
                field=f"{at}.role",
            )
            return None
        return None if told is None else _ROLES[told]

    def _content(self, value: dict[str, object], line: int, at: str) -> str | None:
        content = self._values.present(value, "content", line, "a string", at=f"{at}.")
        if content is None:
            return None
        field = f"{at}.content"
        if isinstance(content, list):
            parts = [
                self._part(part, line, f"{field}[{index}]") for index, part in enumerate(content)
            ]
            texts = [part for part in parts if part is not None]
            if len(texts) < len(parts):
                return None
            return self._values.not_empty("".join(texts), line, field)
        text = self._values.as_text(content, line, field)
        return None if text is None else self._values.not_empty(text, line, field)

    def _part(self, part: object, line: int, at: str) -> str | None:
        if not isinstance(part, dict):
            self._values.wrong_type(part, line, at, f"a text part: {_PART}")
            return None
        if (kind := part.get("type")) != "text":
            what = f"the type {shown(kind)}" if type(kind) is str else "no type"
            self._problems.add(
                line,
                "unsupported_content",
                f"the part of the content has {what}",
                f"text parts only: {_PART}; images, audio and files are not supported",
                field=f"{at}.type",
            )
            return None
        return self._values.text(cast("dict[str, object]", part), "text", line, at=f"{at}.")

    def _supervised(self, value: dict[str, object], role: Role, line: int, at: str) -> bool | None:
        weight = value.get("weight")
        if weight is None:
            return role == "assistant"
        if role != "assistant":
            self._problems.add(
                line,
                "weight_not_of_assistant",
                f"a {role}'s message has a weight",
                "a weight at an assistant's message only; nothing else is learned",
                field=f"{at}.weight",
            )
            return None
        if not isinstance(weight, Number) or weight not in _WEIGHTS:
            self._problems.add(
                line,
                "bad_weight",
                f"the weight is {kind_of(weight)}",
                "1 for an answer to learn, 0 for one that is only read",
                field=f"{at}.weight",
            )
            return None
        return _WEIGHTS[weight]

    def _order_is_wrong(self, said: Sequence[Said], line: int) -> bool:
        turns = said[1:] if said[0].message.role == "system" else said
        for index, each in enumerate(turns):
            role = each.message.role
            wanted = "assistant" if index % 2 else "user"
            if role == "system":
                self._problems.add(
                    line,
                    "system_not_first",
                    "a system message stands behind other messages",
                    "one system message, as the first one, or none",
                    field=f"{each.at}.role",
                )
                return True
            if role != wanted:
                self._problems.add(
                    line,
                    "role_order",
                    f"the role is {role} where {wanted} was to come",
                    "user and assistant in turn, from a user's message on",
                    field=f"{each.at}.role",
                )
                return True
        if len(turns) % 2 or not turns:
            last = said[-1]
            self._problems.add(
                line,
                "no_answer_at_end",
                f"the conversation ends with a {last.message.role} message",
                "an assistant's message at the end",
                field=f"{last.at}.role",
            )
            return True
        return False


def unsupervised(said: Sequence[Said]) -> list[Said]:
    return [Said(each.at, replace(each.message, supervised=False)) for each in said]
