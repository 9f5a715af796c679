"""Messages to a conversation: who may say what, in which order, and which answers are learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from domain.datasets.conversations import Conversation, Message, Role, ToolCall
from domain.datasets.problems import Problems, shown
from domain.datasets.tools import ToolChecks, unknown_tool
from domain.datasets.values import Number, ValueChecks, kind_of

MAX_MESSAGES = 1000  # of a conversation; with a few tokens each it is longer than any context
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # what newer chat interfaces call it
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_ALL_ROLES = "system (or developer), user, assistant or tool"
_SHARE_GPT: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
}
_SHARE_GPT_ROLES = "system, human or gpt; tools stand in rows with messages, in OpenAI's words"
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
        self._tools = ToolChecks(problems, values)

    def tools(self, values: Mapping[str, object], line: int) -> tuple[str, ...] | None:
        """The tools that a row describes; None when they are wrong."""
        return self._tools.tools(values, line)

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

    def conversation(
        self, said: Sequence[Said], line: int, field: str, tools: tuple[str, ...] = ()
    ) -> Conversation | None:
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
        if self._order_is_wrong(said, line) or self._calls_are_wrong(said, line, tools):
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
        return Conversation(line, tuple(messages), tools=tools)

    def prompt(
        self, said: Sequence[Said], line: int, field: str, tools: tuple[str, ...] = ()
    ) -> tuple[Message, ...] | None:
        """Messages that an answer is to follow; None when none can, or they are wrong."""
        answered = [*unsupervised(said), Said(field, Message("assistant", "?", supervised=True))]
        found = self.conversation(answered, line, field, tools)
        return None if found is None else found.messages[:-1]

    def _message(self, value: object, line: int, at: str) -> Said | None:
        if not isinstance(value, dict):
            self._values.wrong_type(
                value, line, at, 'an object, such as {"role": "user", "content": "…"}'
            )
            return None
        if self._asks_for_functions(value, line, at):
            return None
        share_gpt = "role" not in value and "from" in value
        role = self._role(value, line, at, share_gpt=share_gpt)
        if role is None:
            return None
        calls: tuple[ToolCall, ...] | None = ()
        if value.get("tool_calls") and role == "assistant":
            calls = self._tools.calls(value["tool_calls"], line, f"{at}.tool_calls")
        key = "value" if share_gpt else "content"
        content = self._content(value, key, line, at, may_be_empty=calls != ())
        answers = (
            self._values.filled(value, "tool_call_id", line, at=f"{at}.") if role == "tool" else ""
        )
        supervised = self._supervised(value, role, line, at)
        if content is None or calls is None or answers is None or supervised is None:
            return None
        return Said(at, Message(role, content, supervised, calls, answers))

    def _asks_for_functions(self, value: dict[str, object], line: int, at: str) -> bool:
        role = value.get("role")
        key = "function_call" if value.get("function_call") else None
        if key is None and role not in {"function", "ipython"}:
            return False
        what = f"the message has {shown(key)}" if key else f"the role is {shown(str(role))}"
        self._problems.add(
            line,
            "unsupported_tools",
            what,
            "tool_calls of an assistant's message, and the role tool for what they gave",
            field=f"{at}.{key or 'role'}",
        )
        return True

    def _role(
        self, value: dict[str, object], line: int, at: str, *, share_gpt: bool
    ) -> Role | None:
        key = "from" if share_gpt else "role"
        roles = _SHARE_GPT if share_gpt else _ROLES
        told = self._values.text(value, key, line, at=f"{at}.")
        if told is not None and told not in roles:
            self._problems.add(
                line,
                "unknown_role",
                f"the role is {shown(told)}",
                _SHARE_GPT_ROLES if share_gpt else _ALL_ROLES,
                field=f"{at}.{key}",
            )
            return None
        return None if told is None else roles[told]

    def _content(
        self, value: dict[str, object], key: str, line: int, at: str, *, may_be_empty: bool
    ) -> str | None:
        if may_be_empty and value.get(key) in (None, "", []):
            return ""
        content = self._values.present(value, key, line, "a string", at=f"{at}.")
        if content is None:
            return None
        field = f"{at}.{key}"
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
        after_tool = False
        wanted: Role = "user"
        for each in turns:
            role = each.message.role
            if role == "system":
                self._problems.add(
                    line,
                    "system_not_first",
                    "a system message stands behind other messages",
                    "one system message, as the first one, or none",
                    field=f"{each.at}.role",
                )
                return True
            if role != wanted and not (role == "tool" and wanted == "assistant" and after_tool):
                self._problems.add(
                    line,
                    "role_order",
                    f"the role is {role} where {wanted} was to come",
                    "user and assistant in turn, from a user's message on"
                    + ("; behind tool_calls a tool's message for each" if role == "tool" else ""),
                    field=f"{each.at}.role",
                )
                return True
            after_tool = role == "tool"
            wanted = _next(each.message)
        if not turns or turns[-1].message.role != "assistant":
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

    def _calls_are_wrong(self, said: Sequence[Said], line: int, tools: tuple[str, ...]) -> bool:
        """Whether a call names no tool of the row, or is not answered once."""
        waiting: dict[str, str] = {}  # call -> where it stands
        for each in said:
            message = each.message
            if message.role == "tool" and waiting.pop(message.tool_call_id, None) is None:
                what = f"no call before it has the id {shown(message.tool_call_id)}"
                return self._bad_call(line, what, "the id of a call", f"{each.at}.tool_call_id")
            if message.role != "tool" and waiting:
                return self._unanswered(waiting, line)
            for index, call in enumerate(message.tool_calls):
                at = f"{each.at}.tool_calls[{index}]"
                waiting[call.id] = at
                if unknown := unknown_tool(call.name, tools):
                    field = f"{at}.function.name"
                    return self._bad_call(line, unknown, "a tool that the row describes", field)
        return False

    def _unanswered(self, waiting: dict[str, str], line: int) -> bool:
        call, at = next(iter(waiting.items()))
        what = f"the call {shown(call)} is not answered before the next message"
        return self._bad_call(line, what, "a tool's message for every call", at)

    def _bad_call(self, line: int, what: str, expected: str, field: str) -> bool:
        self._problems.add(line, "bad_tool_call", what, expected, field=field)
        return True


def _next(message: Message) -> Role:
    """Who is to speak next; behind a tool it may be another tool as well."""
    if message.role == "assistant":
        return "tool" if message.tool_calls else "user"
    return "assistant"


def unsupervised(said: Sequence[Said]) -> list[Said]:
    return [Said(each.at, replace(each.message, supervised=False)) for each in said]
