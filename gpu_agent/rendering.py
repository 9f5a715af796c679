"""Turns conversations into token ids, and says which of them the loss is taken over.

Text is cut where an answer begins, and the parts are encoded one by one: the ids before an answer
are then exactly those that the model is given when it is asked for one. What people wrote is told
apart from what the chat template wrote, so that no text of theirs becomes a control token.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from typing import Any, Final

from jinja2 import TemplateError

from domain.datasets.conversations import Conversation, Message
from domain.datasets.preferences import PreferencePair
from domain.datasets.tools import tool_name
from domain.work import Segment
from gpu_agent.outcomes import WorkFailed

# Private-use characters around a control token that stands in somebody's text, while it is rendered.
OPEN, CLOSE = "\U000f0000", "\U000f0001"
MARKS = re.compile(f"{OPEN}(.*?){CLOSE}|[{OPEN}{CLOSE}]", re.DOTALL)
# Llama's templates write today's date otherwise, and a run that goes on tomorrow would differ.
DATE: Final = "26 Jul 2024"
SHOWN: Final = 240  # characters of a segment that people are shown; the middle of a longer one goes
SHOWN_SEGMENTS: Final = 8


class ConversationRefused(WorkFailed):
    """The model's chat template cannot say this conversation, or not so that it can be learned from."""

    code = "conversation_refused"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One conversation as the model reads it."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]  # by token: whether it is to be predicted from those before it
    truncated: bool
    full_length: int  # tokens, before truncation

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        return sum(self.supervised)


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """A prompt with two answers as the model reads them."""

    chosen: Rendered
    rejected: Rendered

    @property
    def tokens(self) -> int:
        return self.chosen.tokens + self.rejected.tokens

    @property
    def targets(self) -> int:
        return self.chosen.targets + self.rejected.targets

    @property
    def teaches(self) -> bool:
        """Whether something is left of both answers, and not the same."""
        both = bool(self.chosen.targets and self.rejected.targets)
        return both and self.chosen.ids != self.rejected.ids


def prompt_ids(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> list[int]:
    """Encode a conversation, as (role, content), up to where the model's own words begin.

    Raises:
        ConversationRefused: there is no chat template, or it does not take these roles.
    """
    turns = [_turn(tokenizer, role, content) for role, content in messages]
    return _ids(tokenizer, _chat(tokenizer, turns, prompt=True), first=True)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Encode a prompt as it stands, behind the token that every text of this model begins with."""
    return [*_beginning(tokenizer), *_ids(tokenizer, _marked(tokenizer, text), first=True)]


def render(tokenizer: Any, conversation: Conversation, max_length: int) -> Rendered:
    """Encode a whole conversation; what is longer than ``max_length`` tokens loses its end.

    The token that ends an answer is supervised like the answer itself.

    Raises:
        ConversationRefused: the template takes it not at all, or changes earlier turns afterwards.
    """
    parts = _raw_parts if conversation.raw else _chat_parts
    ids: list[int] = []
    supervised: list[bool] = []
    for part, learned in parts(tokenizer, conversation):
        ids += part
        supervised += [learned] * len(part)
    supervised[:1] = [False] * len(supervised[:1])  # nothing stands before it
    return Rendered(
        ids=tuple(ids[:max_length]),
        supervised=tuple(supervised[:max_length]),
        truncated=len(ids) > max_length,
        full_length=len(ids),
    )


def render_pair(tokenizer: Any, pair: PreferencePair, max_length: int) -> RenderedPair:
    """Encode both answers, each behind the prompt; nothing but the answers is supervised.

    Raises:
        ConversationRefused: the template takes the conversation not at all.
    """
    chosen, rejected = pair.answered()
    return RenderedPair(
        render(tokenizer, chosen, max_length), render(tokenizer, rejected, max_length)
    )


def turn_end(tokenizer: Any) -> int | None:
    """Find the control token that ends an answer in a chat; none where the template writes none."""
    turns = (Message("user", "?", supervised=False), Message("assistant", "!", supervised=True))
    try:
        rendered = render(tokenizer, Conversation(0, turns), SHOWN)
    except ConversationRefused:
        return None
    marked = zip(rendered.ids, rendered.supervised, strict=True)
    *_, last = [None, *(token for token, learned in marked if learned)]
    return last if last in _control_tokens(tokenizer, _template(tokenizer)) else None


def segments(tokenizer: Any, rendered: Rendered) -> tuple[Segment, ...]:
    """Show people what is learned from and what is only read; long texts lose their middle."""
    shown = []
    marked = zip(rendered.supervised, rendered.ids, strict=True)
    for supervised, group in groupby(marked, key=lambda token: token[0]):
        text = tokenizer.decode([token for _, token in group], clean_up_tokenization_spaces=False)
        if len(text) > SHOWN:
            text = f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"
        shown.append(Segment(text=text, supervised=supervised))
    return tuple(shown[:SHOWN_SEGMENTS])


def _raw_parts(tokenizer: Any, conversation: Conversation) -> Iterator[tuple[list[int], bool]]:
    prompt = "".join(message.content for message in conversation.messages[:-1])
    answer = _ids(tokenizer, _marked(tokenizer, conversation.answer), first=not prompt)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    yield text_ids(tokenizer, prompt), False
    yield answer + end, True


def _chat_parts(tokenizer: Any, conversation: Conversation) -> Iterator[tuple[list[int], bool]]:
    turns = [_with_calls(tokenizer, message) for message in conversation.messages]
    tools = [_marked_in(tokenizer, json.loads(tool)) for tool in conversation.tools]
    whole = _chat(tokenizer, turns, tools, prompt=False)
    _require_tools(conversation, whole)
    done = 0
    for at, message in enumerate(conversation.messages):
        if not message.supervised:
            continue
        start = _chat(tokenizer, turns[:at], tools, prompt=True)
        last = at + 1 == len(turns)
        end = whole if last else _chat(tokenizer, turns[: at + 1], tools, prompt=False)
        if not (end.startswith(start) and whole.startswith(end)):
            raise ConversationRefused(_UNSTABLE.format(line=conversation.line, number=at + 1))
        yield _ids(tokenizer, whole[done : len(start)], first=done == 0), False
        answer = _ids(tokenizer, whole[len(start) : len(end)], first=False)
        length = _end_of_turn(tokenizer, answer)
        yield answer[:length], True
        yield answer[length:], False
        done = len(end)
    yield _ids(tokenizer, whole[done:], first=False), False


_UNSTABLE: Final = (
    "line {line}: the model's chat template writes message {number} in another way when the "
    "conversation goes on, so what would be learned is not what is asked for later; give the "
    "earlier answers weight 0, or part the conversation into rows with one answer each"
)


def _end_of_turn(tokenizer: Any, answer: Sequence[int]) -> int:
    """Find how far an answer is learned: to its last control token, behind which the model is silent."""
    control = _control_tokens(tokenizer, _template(tokenizer))
    ends = (at for at in range(len(answer), 0, -1) if answer[at - 1] in control)
    return next(ends, len(answer))


def _turn(tokenizer: Any, role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": _marked(tokenizer, content)}


def _with_calls(tokenizer: Any, message: Message) -> dict[str, Any]:
    """A message in the words of chat templates, which take arguments as an object."""
    turn = _turn(tokenizer, message.role, message.content)
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": _marked(tokenizer, call.name),
                    "arguments": _marked_in(tokenizer, json.loads(call.arguments)),
                },
            }
            for call in message.tool_calls
        ]
    return turn | ({"tool_call_id": message.tool_call_id} if message.tool_call_id else {})


def _marked_in(tokenizer: Any, value: Any) -> Any:
    """Mark every text of a JSON value."""
    match value:
        case str():
            return _marked(tokenizer, value)
        case list():
            return [_marked_in(tokenizer, each) for each in value]
        case dict():
            return {
                _marked(tokenizer, key): _marked_in(tokenizer, each) for key, each in value.items()
            }
        case _:
            return value


def _require_tools(conversation: Conversation, whole: str) -> None:
    """Most templates pass over what they do not know; what they leave out nobody would learn."""
    needed = [("tool", tool_name(tool)) for tool in conversation.tools]
    for message in conversation.messages:
        needed += [("call of a tool", call.name) for call in message.tool_calls]
        if message.role == "tool":
            needed.append(("answer of a tool", message.content.strip()))
    if not needed:
        return
    text = whole.replace(OPEN, "").replace(CLOSE, "")
    for what, said in needed:
        if said not in text and json.dumps(said, ensure_ascii=False)[1:-1] not in text:
            raise ConversationRefused(
                f"line {conversation.line}: the model's chat template leaves out a {what} "
                f"({said[:80]!r}), so it cannot be learned; take a base model whose template has tools"
            )


def _chat(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[Any] = (),
    *,
    prompt: bool,
) -> str:
    """Render by the template, with marks around control tokens in what people wrote."""
    if tokenizer.chat_template is None:
        raise ConversationRefused(
            "the model has no chat template, so it learns from prompt and completion rows only"
        )
    known = {"tools": list(tools)} if tools else {}
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=prompt,
            date_string=DATE,
            **known,
        )
    except (TemplateError, ValueError, TypeError) as error:
        roles = ", ".join(message["role"] for message in messages) or "nothing"
        raise ConversationRefused(
            f"the model's chat template does not take a conversation of {roles}: {error}"
        ) from error
    return text


def _marked(tokenizer: Any, text: str) -> str:
    text = text.replace(OPEN, "").replace(CLOSE, "")
    return _control_pattern(tokenizer, _template(tokenizer)).sub(rf"{OPEN}\g<0>{CLOSE}", text)


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: Any, template: str | None) -> dict[int, str]:
    """Find the tokens that structure a conversation: special ones, and those the template writes.

    Other added tokens are words of the vocabulary, as Gemma's HTML tags and line breaks are.
    """
    return {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or (token.content in (template or "") and not token.content.isspace())
    }


def _template(tokenizer: Any) -> str | None:
    """Give the chat template; some models have one more for tools, and both write their tokens."""
    template: str | dict[str, str] | None = tokenizer.chat_template
    return "\n".join(template.values()) if isinstance(template, dict) else template


@lru_cache(maxsize=8)
def _control_pattern(tokenizer: Any, template: str | None) -> re.Pattern[str]:
    longest_first = sorted(_control_tokens(tokenizer, template).values(), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _ids(tokenizer: Any, marked: str, *, first: bool) -> list[int]:
    """Encode text with marks; ``first`` says whether it stands at the beginning."""
    ids: list[int] = []
    at = 0
    for mark in MARKS.finditer(marked):
        ids += _encoded(tokenizer, marked[at : mark.start()], first=first and at == 0)
        if mark[1]:
            ids += _as_text(tokenizer, mark[1])
        at = mark.end()
    return ids + _encoded(tokenizer, marked[at:], first=first and at == 0)


def _encoded(tokenizer: Any, text: str, *, first: bool, **how: bool) -> list[int]:
    """Encode a part of a text as if it stood in the middle, unless it is the first.

    SentencePiece puts a space before the first word of whatever it is given; behind a line break,
    which is taken away again, it does not.
    """
    if not text:
        return []
    if not first:
        line_break = _line_break(tokenizer)
        ids: list[int] = tokenizer.encode(f"\n{text}", add_special_tokens=False, **how)
        if ids[: len(line_break)] == line_break:
            return ids[len(line_break) :]
    whole: list[int] = tokenizer.encode(text, add_special_tokens=False, **how)
    return whole


@lru_cache(maxsize=8)
def _line_break(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer.encode("\n", add_special_tokens=False)
    return ids


def _as_text(tokenizer: Any, token: str) -> list[int]:
    """Encode the letters of a control token and not the token."""
    control = _control_tokens(tokenizer, _template(tokenizer))
    whole = _encoded(tokenizer, token, first=False, split_special_tokens=True)
    # Tokens that are not marked as special are found all the same, unless they are cut in two.
    cut = (
        _encoded(tokenizer, token[:at], first=False) + _encoded(tokenizer, token[at:], first=False)
        for at in range(1, len(token))
    )
    for ids in chain([whole], cut):
        if not control.keys() & ids:
            return ids
    raise ConversationRefused(f"{token!r} is in the text, and the model knows it only as a token")


def _beginning(tokenizer: Any) -> list[int]:
    ids = tokenizer("")["input_ids"]
    return [tokenizer.bos_token_id] if tokenizer.bos_token_id in ids else []
