"""Turns tokens into text as they come: whole characters only, and nothing of a stop string."""

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from domain.inference import TokenLogprob

WORD_START: Final = "▁"  # how SentencePiece writes a space


class TokenTexts:
    """The bytes that each token of a vocabulary stands for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._added = {number: str(token) for number, token in added.items()}
        self._special = frozenset(tokenizer.all_special_ids) | frozenset(
            number for number, token in added.items() if token.special
        )
        self._byte_level = _is_byte_level(tokenizer)
        self._known: dict[int, bytes] = {}

    def of(self, token: int) -> bytes:
        """What it adds to a text; a special token adds nothing."""
        if token not in self._known:
            self._known[token] = b"" if token in self._special else self.shown(token)
        return self._known[token]

    def shown(self, token: int) -> bytes:
        """What it is, special or not."""
        if token in self._added:
            return self._added[token].encode()
        written = self._tokenizer.convert_ids_to_tokens(token)
        if written is None:  # networks have more outputs than their tokenizer has tokens
            return b""
        if self._byte_level:
            return bytes(BYTES[char] for char in written if char in BYTES)
        if len(written) == 6 and written.startswith("<0x") and written.endswith(">"):
            return bytes([int(written[3:5], 16)])
        return str(written).replace(WORD_START, " ").encode()

    def drops_space(self, token: int) -> bool:
        """Whether the tokenizer leaves out the space that a text begins with."""
        shown = self.of(token)
        if not shown.startswith(b" "):
            return False
        return not self._tokenizer.decode([token]).startswith(" ")


def _is_byte_level(tokenizer: Any) -> bool:
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()


def _bytes_by_character() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as they are, the rest from U+0100 on.

    The table is GPT-2's (Radford et al. 2019, ``encoder.py``), and every such vocabulary uses it.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + number): byte for number, byte in enumerate(others)
    }


BYTES: Final = _bytes_by_character()


class StopStrings:
    """Holds back what may become a stop string, and cuts the text before the first one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Take more text and give what is certain; after a stop string nothing is."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        certain = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer: text that is certain, and the tokens it came from."""

    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...]


class TextStream:
    """One answer on its way from tokens to text."""

    def __init__(self, texts: TokenTexts, stops: Sequence[str]) -> None:
        self._texts = texts
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = StopStrings(stops)
        self._first = True
        self._read = 0  # characters so far, what is held back included
        self._given = 0  # characters that are certain
        self._tokens = 0  # not yet given
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()  # and where their text begins

    @property
    def stopped(self) -> bool:
        return self._stops.found

    def feed(self, token: int, logprob: TokenLogprob | None = None) -> Part | None:
        """Take a token; None while nothing is certain."""
        if logprob is not None:
            self._logprobs.append((self._read, logprob))
        self._tokens += 1
        content = self._texts.of(token)
        if self._first and content:
            self._first = False
            content = content[1:] if self._texts.drops_space(token) else content
        text = self._characters.decode(content)
        self._read += len(text)
        certain = self._stops.feed(text)
        if not certain and not self.stopped:
            return None
        return self._part(certain)

    def count(self) -> None:
        """Take a token that is no part of the text: it ended the model's turn."""
        self._tokens += 1

    def finish(self) -> Part | None:
        """Give what was held back, half a character as a replacement mark."""
        if self.stopped:
            return None
        rest = self._characters.decode(b"", final=True)
        text = self._stops.feed(rest)
        if not self.stopped:
            text += self._stops.finish()
        part = self._part(text, everything=not self.stopped)
        return part if part.text or part.tokens else None

    def _part(self, text: str, *, everything: bool = False) -> Part:
        self._given += len(text)
        logprobs = []
        while self._logprobs and (everything or self._logprobs[0][0] < self._given):
            logprobs.append(self._logprobs.popleft()[1])
        tokens, self._tokens = self._tokens, 0
        return Part(text, tokens, tuple(logprobs))
