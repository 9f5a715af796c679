"""Rows of two answers to one prompt, the better and the worse, in each of their usual spellings."""

from collections.abc import Mapping, Sequence
from typing import Final

from domain.datasets.chat_messages import MessageChecks, Said
from domain.datasets.checks import Columns, find_column, missing_column
from domain.datasets.conversations import Message
from domain.datasets.preferences import PreferencePair
from domain.datasets.problems import Problems
from domain.datasets.rated_rows import answer_of_calls
from domain.datasets.values import ValueChecks

PROMPT: Final = "prompt"
INPUT: Final = "input"
# The better answer and the worse: as most data sets call them, and as OpenAI does and did.
SPELLINGS: Final = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("preferred_completion", "non_preferred_completion"),
)
_ANSWERS_AT: Final = "Assistant:"  # behind which an answer begins in texts of a whole conversation
_DIFFERENT: Final = "two answers that differ, the better one first"


class PreferenceRows:
    at_least = "at least one row with a better and a worse answer"

    def __init__(
        self, text_column: str | None, label_column: str | None, problems: Problems
    ) -> None:
        self._chosen = (text_column, label_column)
        self._problems = problems
        self._values = ValueChecks(problems)
        self._messages = MessageChecks(problems, self._values)
        self._better = self._worse = self._prompt = ""
        self.columns: Columns | None = None

    def begin(self, names: Sequence[str], line: int) -> None:
        prompt, better = self._chosen
        told = (better or "").casefold()
        pairs = [pair for pair in SPELLINGS if told in {"", pair[0]}]
        found = [
            (better_key, worse_key)
            for pair in pairs
            if (better_key := find_column(names, pair[:1]))
            and (worse_key := find_column(names, pair[1:]))
        ]
        if not found:
            missing_column(names, better or "chosen", "chosen and rejected", line, self._problems)
            return
        self._better, self._worse = found[0]
        key = find_column(names, [prompt] if prompt else [PROMPT, INPUT])
        if key is None and prompt:
            missing_column(names, prompt, "a prompt", line, self._problems)
            return
        self._prompt = key or ""
        self.columns = Columns(self._prompt, self._better)

    def take(self, line: int, values: Mapping[str, object]) -> PreferencePair | None:
        if self.columns is None:
            return None
        given = values.get(self._prompt) if self._prompt else None
        if isinstance(given, dict):
            return self._of_openai(given, values, line)
        if isinstance(values.get(self._better), list):
            return self._of_messages(given, values, line)
        return self._of_texts(values, line)

    def finish(self) -> None:
        """One good row is enough."""

    def _of_openai(
        self, given: Mapping[str, object], values: Mapping[str, object], line: int
    ) -> PreferencePair | None:
        at = f"{self._prompt}.messages"
        tools = self._messages.tools(given, line)
        value = self._values.present(
            given, "messages", line, "an array of messages", at=f"{self._prompt}."
        )
        asked = None if value is None else self._messages.read(value, line, at)
        answers = self._answers(values, line)
        if asked is None or tools is None or answers is None:
            return None
        return self._pair(asked, answers, line, at, tools)

    def _of_messages(
        self, given: object, values: Mapping[str, object], line: int
    ) -> PreferencePair | None:
        """Answers as messages, behind a prompt or each with the whole conversation before it."""
        tools = self._messages.tools(values, line)
        answers = self._answers(values, line)
        if tools is None or answers is None:
            return None
        if isinstance(given, list):
            asked = self._messages.read(given, line, self._prompt)
            return None if asked is None else self._pair(asked, answers, line, self._prompt, tools)
        told = None
        if given is not None:
            told = self._values.filled(values, self._prompt, line)
            if told is None:
                return None
            if all(said[0].message.role == "assistant" for said in answers):
                asked = [Said(self._prompt, Message("user", told, supervised=False))]
                return self._pair(asked, answers, line, self._prompt, tools)
        better, worse = answers
        shared = [
            one for one, other in zip(better, worse, strict=False) if one.message == other.message
        ]
        asked, at = better[:-1], self._better
        if [each.message for each in asked] != [each.message for each in worse[:-1]]:
            self._bad(
                line,
                "prompts_differ",
                f"the two conversations differ from message {len(shared) + 1} on",
                "the same messages before both answers, each of which is the last message",
                self._worse,
            )
            return None
        if told is not None and told not in [each.message.content for each in asked]:
            what = "the prompt is none of the messages before the answers"
            self._bad(line, "prompts_differ", what, "the prompt that was answered", self._prompt)
            return None
        return self._pair(asked, (better[-1:], worse[-1:]), line, at, tools)

    def _of_texts(self, values: Mapping[str, object], line: int) -> PreferencePair | None:
        better = self._values.filled(values, self._better, line)
        worse = self._values.filled(values, self._worse, line)
        if better is None or worse is None:
            return None
        if self._prompt:
            prompt = self._values.filled(values, self._prompt, line)
            if prompt is None:
                return None
        else:
            prompt = shared_prompt(better, worse)
            better, worse = better[len(prompt) :], worse[len(prompt) :]
            if not prompt:
                what = "there is no prompt, and the two texts begin differently"
                expected = "a prompt, or two texts that begin with it"
                self._bad(line, "prompts_differ", what, expected, self._better)
                return None
        return self._finished((Message("user", prompt, supervised=False),), better, worse, line)

    def _answers(
        self, values: Mapping[str, object], line: int
    ) -> tuple[list[Said], list[Said]] | None:
        found = []
        for key in (self._better, self._worse):
            value = self._values.present(values, key, line, "an array of messages")
            said = None if value is None else self._messages.read(value, line, key)
            if said == []:
                self._bad(line, "no_messages", "there is no answer", "an assistant's message", key)
            found.append(said)
        better, worse = found
        return (better, worse) if better and worse else None

    def _pair(
        self,
        asked: Sequence[Said],
        answers: tuple[list[Said], list[Said]],
        line: int,
        at: str,
        tools: tuple[str, ...],
    ) -> PreferencePair | None:
        texts = []
        for key, said in zip((self._better, self._worse), answers, strict=True):
            last = said[-1]
            if len(said) > 1 or last.message.role != "assistant":
                what = (
                    f"the answer is {len(said)} messages, the last of them a {last.message.role}'s"
                )
                self._bad(line, "several_answers", what, "one assistant's message", key)
                return None
            if last.message.tool_calls:
                answer_of_calls(line, key, self._problems)
                return None
            texts.append(last.message.content)
        prompt = self._messages.prompt(asked, line, at, tools)
        if prompt is None:
            return None
        better, worse = texts
        return self._finished(prompt, better, worse, line, tools, raw=False)

    def _finished(
        self,
        prompt: tuple[Message, ...],
        better: str,
        worse: str,
        line: int,
        tools: tuple[str, ...] = (),
        *,
        raw: bool = True,
    ) -> PreferencePair | None:
        if better == worse:
            self._bad(line, "same_answers", "both answers are the same", _DIFFERENT, self._worse)
            return None
        if not (better.strip() and worse.strip()):
            key = self._worse if better.strip() else self._better
            self._bad(line, "empty_text", "nothing follows the prompt", "an answer", key)
            return None
        return PreferencePair(line, prompt, better, worse, raw, tools)

    def _bad(self, line: int, code: str, what: str, expected: str, field: str) -> None:
        self._problems.add(line, code, what, expected, field=field)


def shared_prompt(better: str, worse: str) -> str:
    """What two texts begin with: up to the last ``Assistant:``, else to the last white space."""
    pairs = enumerate(zip(better, worse, strict=False))
    length = next((at for at, (one, other) in pairs if one != other), min(len(better), len(worse)))
    same = better[:length]
    if (at := same.rfind(_ANSWERS_AT)) >= 0:
        return same[: at + len(_ANSWERS_AT)]
    kept = len(same)
    while kept and not same[kept - 1].isspace():
        kept -= 1
    return same[:kept]
