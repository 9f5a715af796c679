"""Tools of a conversation: what may be asked, what is asked, in the words of OpenAI's chat rows."""

import json
from collections.abc import Mapping
from typing import Any, Never

from domain.datasets.conversations import ToolCall
from domain.datasets.lines import NOT_TEXT
from domain.datasets.problems import Problems, shown
from domain.datasets.values import Number, ValueChecks, kind_of

MAX_TOOLS = 128  # of a conversation, as OpenAI has it
MAX_CALLS = 128  # of a message
_CALL = '{"id": "call_1", "type": "function", "function": {"name": "…", "arguments": "{}"}}'
_TOOL = '{"type": "function", "function": {"name": "…", "description": "…", "parameters": {…}}}'
_ONCE = "another id for every call of a message, and a tool's message for each"


class ToolChecks:
    def __init__(self, problems: Problems, values: ValueChecks) -> None:
        self._problems = problems
        self._values = values

    def tools(self, values: Mapping[str, object], line: int) -> tuple[str, ...] | None:
        """The tools of a row, none if it names none; None when they are wrong."""
        if values.get("functions"):
            self._problems.add(
                line,
                "unsupported_tools",
                'the row has "functions", which were replaced',
                f"tools instead: {_TOOL}",
                field="functions",
            )
            return None
        found = values.get("tools")
        if isinstance(found, str) and found.strip() and not isinstance(found, Number):
            found = _json(found)  # as tables keep them
        if not found:
            return ()
        if not isinstance(found, list) or len(found) > MAX_TOOLS:
            self._bad(line, "tools", f"tools are {kind_of(found)}", "bad_tools", _TOOL)
            return None
        read = [self._tool(each, line, f"tools[{index}]") for index, each in enumerate(found)]
        tools = tuple(tool for tool in read if tool is not None)
        return tools if len(tools) == len(read) else None

    def calls(self, found: object, line: int, at: str) -> tuple[ToolCall, ...] | None:
        """What an assistant's message asks of tools; None when it is wrong."""
        if not isinstance(found, list) or len(found) > MAX_CALLS:
            what = f"{at} is {kind_of(found)}"
            self._bad(line, at, what, "bad_tool_call", f"an array of at most {MAX_CALLS}: {_CALL}")
            return None
        read = [self._call(each, line, f"{at}[{index}]") for index, each in enumerate(found)]
        calls = tuple(call for call in read if call is not None)
        if len(calls) < len(read):
            return None
        if len({call.id for call in calls}) < len(calls):
            self._bad(line, at, "two calls have one id", "bad_tool_call", _ONCE)
            return None
        return calls

    def _tool(self, value: object, line: int, at: str) -> str | None:
        function = value.get("function") if isinstance(value, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if type(name) is not str or not name.strip():
            self._bad(line, at, "the tool has no function with a name", "bad_tools", _TOOL)
            return None
        return self._written(value, line, at, "bad_tools")

    def _call(self, value: object, line: int, at: str) -> ToolCall | None:
        function = value.get("function") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(function, dict):
            self._bad(line, at, "the call names no function", "bad_tool_call", _CALL)
            return None
        name = self._values.filled(function, "name", line, at=f"{at}.function.")
        told = value.get("id")
        if type(told) is not str or not told:
            self._bad(line, f"{at}.id", f"the id is {kind_of(told)}", "bad_tool_call", _CALL)
            return None
        arguments = function.get("arguments")
        if type(arguments) is str:
            arguments = _json(arguments)
        if not isinstance(arguments, dict):
            self._bad(
                line,
                f"{at}.function.arguments",
                "the arguments are no JSON object",
                "bad_tool_call",
                'a JSON object, mostly as a string: "{\\"city\\": \\"Paris\\"}"',
            )
            return None
        written = self._written(arguments, line, f"{at}.function.arguments", "bad_tool_call")
        return None if name is None or written is None else ToolCall(told, name, written)

    def _written(self, value: object, line: int, at: str, code: str) -> str | None:
        try:
            text = json.dumps(_plain(value), ensure_ascii=False)
        except ValueError as error:
            self._bad(line, at, f"a number cannot be read: {error}", code, "an ordinary number")
            return None
        if NOT_TEXT.search(text):
            self._bad(line, at, "it holds what is no character", code, "characters only")
            return None
        return text if self._values.fits(text, line, at) else None

    def _bad(self, line: int, field: str, what: str, code: str, expected: str) -> None:
        self._problems.add(line, code, what, expected, field=field)


def tool_name(tool: str) -> str:
    name: str = json.loads(tool)["function"]["name"]
    return name


def unknown_tool(name: str, tools: tuple[str, ...]) -> str | None:
    """What is wrong with a call of a tool that the row does not describe, in words."""
    known = list(map(tool_name, tools))
    if not known or name in known:
        return None
    return f"{shown(name)} is none of the tools: {', '.join(map(shown, known[:20]))}"


def _plain(value: object) -> Any:
    """Numbers as numbers again, which the parser has kept as they are spelled."""
    if isinstance(value, Number):
        return _json(value)
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items() if each is not None}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _json(text: str) -> object:
    """What a JSON text says; None where it is none."""
    try:
        found: object = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return found


def _no_constant(name: str) -> Never:
    raise ValueError(name)
