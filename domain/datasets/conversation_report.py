"""What a dataset of conversations holds, counted one by one without keeping their texts."""

from domain.datasets.conversations import Conversation
from domain.datasets.digests import text_digest
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.work import Segment

# An event has 64 KiB, and a character takes six bytes at worst.
MAX_EXAMPLE_MESSAGES = 12
MAX_EXAMPLE_CHARS = 600  # of one message


class ConversationReportBuilder:
    def __init__(self) -> None:
        self._first: dict[bytes, bytes] = {}  # prompt -> the answer that stood there first
        self._also: dict[bytes, set[bytes]] = {}  # the answers of a prompt that has more than one
        self._rows = 0
        self._chars = 0
        self.messages = 0
        self.supervised_messages = 0
        self.duplicate_rows = 0  # prompt and answer stood in an earlier row
        self.longest_chars = 0  # of all messages of a conversation
        self.example: tuple[Segment, ...] = ()  # the first conversation

    @property
    def conflicting_prompts(self) -> int:
        """Prompts that stand before different answers."""
        return len(self._also)

    @property
    def mean_chars(self) -> float:
        return self._chars / self._rows if self._rows else 0.0

    def add(self, conversation: Conversation) -> None:
        if not self._rows:
            self.example = example(conversation)
        chars = sum(len(message.said) for message in conversation.messages)
        self._rows += 1
        self._chars += chars
        self.longest_chars = max(self.longest_chars, chars)
        self.messages += len(conversation.messages)
        self.supervised_messages += sum(message.supervised for message in conversation.messages)
        self._compare(text_digest(conversation.prompt), text_digest(conversation.answer))

    def add_answers(self, row: PreferencePair | RatedCompletion) -> None:
        """Answers that are compared or rated: all of them are learned from."""
        if isinstance(row, PreferencePair):
            answers = {"chosen": row.chosen, "rejected": row.rejected}
        else:
            answers = {"desirable" if row.desirable else "undesirable": row.completion}
        if not self._rows:
            asked = Conversation(row.line, row.prompt, row.raw)
            said = [f"{name}: {answer}" for name, answer in answers.items()]
            self.example = (
                *example(asked)[: MAX_EXAMPLE_MESSAGES - len(said)],
                *(Segment(text=_cut(text), supervised=True) for text in said),
            )
        asked_chars = sum(len(message.content) for message in row.prompt)
        chars = asked_chars + sum(map(len, answers.values()))
        self._rows += 1
        self._chars += chars
        self.longest_chars = max(self.longest_chars, chars)
        self.messages += len(row.prompt) + len(answers)
        self.supervised_messages += len(answers)
        prompt = Conversation(row.line, (*row.prompt, *row.prompt[:1])).prompt
        self._compare(text_digest(prompt), text_digest(repr(sorted(answers.items()))))

    def _compare(self, prompt: bytes, answer: bytes) -> None:
        first = self._first.get(prompt)
        if first is None:
            self._first[prompt] = answer
        elif answer in (known := self._also.get(prompt, {first})):
            self.duplicate_rows += 1
        else:
            self._also[prompt] = known | {answer}


def example(conversation: Conversation) -> tuple[Segment, ...]:
    """One segment a message, with its role unless it is read as it stands; the last is the answer."""
    segments = [
        Segment(
            text=_cut(message.said if conversation.raw else f"{message.role}: {message.said}"),
            supervised=message.supervised,
        )
        for message in conversation.messages
    ]
    left_out = len(segments) - MAX_EXAMPLE_MESSAGES
    if left_out > 0:
        gap = Segment(text=f"… {left_out} messages left out …", supervised=False)
        segments[MAX_EXAMPLE_MESSAGES - 1 : -1] = [gap]
    return tuple(segments)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_EXAMPLE_CHARS else text[: MAX_EXAMPLE_CHARS - 1] + "…"
