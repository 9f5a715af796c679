"""Generates text for many requests at once: one forward a token for all that share a model and an adapter.

Requests come and go between two tokens; none waits for another to end.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from domain.inference import Begun, End, Piece, Refused, Sampling, TokenLogprob
from domain.work import Failed
from gpu_agent.decoding import Rows, left_padded
from gpu_agent.detokenising import Part, TextStream, TokenTexts
from gpu_agent.language_model import LanguageModel
from gpu_agent.lora import LoraWeights, use
from gpu_agent.outcomes import WorkFailed
from gpu_agent.protocol import SLOTS
from gpu_agent.sampling import Sampler, choose, log_probabilities

READ_TOKENS: Final = 2048  # of prompts in one step: the others' next tokens wait as long
# Weights times tokens in one step of a CPU's: 4 s at the 40 GFLOPS of two free cores, 12 s beside a
# training. A child that says nothing for 30 s is killed, and every text with it.
READ_WORK: Final = 75_000_000_000
SHORT: Final = 64  # tokens; prompts up to this length are read together whatever they are
PADDED: Final = 2 / 3  # of what is read with a longer prompt is its own, at the least
NO_CHANCE: Final = -9999.0  # nats; JSON has no infinity
NO_NUMBERS: Final = Failed(
    code="generation_failed", message="the model's scores are no numbers", retryable=False
)

Reply = Begun | Piece | End | Refused
Reason = Literal["stop", "length", "cancelled"]


class ContextTooLong(WorkFailed):
    """A prompt leaves no room for an answer."""

    code = "context_too_long"


@dataclass(frozen=True, slots=True, eq=False)
class Speaker:
    """Whose words they are: a base model and what lies over it. One object, one group."""

    model: LanguageModel
    weights: LoraWeights | None
    texts: TokenTexts
    threads: int = 1


class _Sequence:
    """One request from its prompt to its end."""

    def __init__(
        self, request_id: str, speaker: Speaker, ids: Sequence[int], sampling: Sampling
    ) -> None:
        room = speaker.model.max_tokens - len(ids)
        self.request_id = request_id
        self.speaker = speaker
        self.ids = ids
        self.sampler = Sampler(sampling)
        self.last = 0  # the token that was chosen last
        self.over = False
        self._limit = min(sampling.max_tokens or room, room)
        self._top = sampling.top_logprobs
        self._text = TextStream(speaker.texts, sampling.stop)
        self._count = 0
        self._pieces = 0
        self._since = time.monotonic()
        self._first_token_s: float | None = None

    def begun(self) -> Begun:
        return Begun(request_id=self.request_id, prompt_tokens=len(self.ids))

    def take(self, token: int | None, logits: Tensor) -> Iterator[Reply]:
        """Go on by one token; logits: (V,) that it was chosen from."""
        if token is None:
            self.over = True
            yield Refused(request_id=self.request_id, error=NO_NUMBERS)
            return
        self.last = token
        self._count += 1
        if self._first_token_s is None:
            self._first_token_s = time.monotonic() - self._since
        if token in self.speaker.model.eos_ids:
            self._text.count()
            yield from self._ended("stop")
            return
        part = self._text.feed(token, self._logprob(token, logits))
        if part is not None:
            yield self._piece(part)
        if self._text.stopped:
            yield from self._ended("stop")
        elif self._count == self._limit:
            yield from self._ended("length")

    def end(self, reason: Reason) -> End:
        self.over = True
        return End(
            request_id=self.request_id,
            reason=reason,
            prompt_tokens=len(self.ids),
            completion_tokens=self._count,
            seconds=time.monotonic() - self._since,
            first_token_s=self._first_token_s,
        )

    def _ended(self, reason: Literal["stop", "length"]) -> Iterator[Reply]:
        part = self._text.finish()
        if part is not None:
            yield self._piece(part)
        yield self.end("stop" if self._text.stopped else reason)

    def _piece(self, part: Part) -> Piece:
        number, self._pieces = self._pieces, self._pieces + 1
        return Piece(
            request_id=self.request_id,
            number=number,
            text=part.text,
            tokens=part.tokens,
            logprobs=part.logprobs,
        )

    def _logprob(self, token: int, logits: Tensor) -> TokenLogprob | None:
        if self._top is None:
            return None
        own, top = log_probabilities(logits, token, self._top)
        shown = self.speaker.texts.shown(token)
        return TokenLogprob(
            token=_readable(shown),
            logprob=max(own, NO_CHANCE),
            bytes=tuple(shown),
            top=tuple(
                (_readable(other), max(value, NO_CHANCE), tuple(other))
                for other, value in ((self.speaker.texts.shown(id_), value) for id_, value in top)
            ),
        )


def _readable(shown: bytes) -> str:
    return shown.decode("utf-8", "replace")


class _Group:
    """Sequences of one speaker in one batch; at first their prompts are still to be read."""

    def __init__(self, sequences: list[_Sequence]) -> None:
        self.speaker = sequences[0].speaker
        self.sequences = sequences
        self.rows = Rows(self.speaker.model.network, len(sequences))
        self._unread = left_padded([sequence.ids for sequence in sequences])

    @property
    def read(self) -> bool:
        return self._unread[0].shape[1] == 0

    def read_on(self) -> list[Reply]:
        """Read some more of the prompts; the first tokens follow the last of it."""
        columns = max(1, _tokens_at_once(self.speaker.model) // len(self.sequences))
        ids, real = self._unread
        self._unread = ids[:, columns:], real[:, columns:]
        logits = self._forward(ids[:, :columns], real[:, :columns])
        return self._take(logits) if self.read else []

    def decode(self) -> list[Reply]:
        """One token for every sequence."""
        last = torch.tensor([[sequence.last] for sequence in self.sequences])
        return self._take(self._forward(last))

    def join(self, other: "_Group") -> None:
        """Take in sequences that have come as far as these."""
        self.rows.join(other.rows)
        self.sequences += other.sequences

    def drop_ended(self) -> None:
        rows = [row for row, sequence in enumerate(self.sequences) if not sequence.over]
        if len(rows) < len(self.sequences):
            self.sequences = [self.sequences[row] for row in rows]
            if rows:
                self.rows.keep(rows)
                ids, real = self._unread
                self._unread = ids[rows], real[rows]

    def _forward(self, ids: Tensor, real: Tensor | None = None) -> Tensor:
        torch.set_num_threads(self.speaker.threads)
        use(self.speaker.model, self.speaker.weights)
        return self.rows.read(ids, real)

    def _take(self, logits: Tensor) -> list[Reply]:
        tokens = choose(logits, [sequence.sampler for sequence in self.sequences])
        replies: list[Reply] = []
        for row, (sequence, token) in enumerate(zip(self.sequences, tokens, strict=True)):
            replies += sequence.take(token, logits[row])
        self.drop_ended()
        return replies


class Engine:
    """`step` does the work; between two steps requests are added and cancelled."""

    def __init__(self) -> None:
        self._waiting: deque[_Sequence] = deque()
        self._reading: _Group | None = None
        self._groups: dict[Speaker, _Group] = {}

    @property
    def active(self) -> int:
        """How many sequences have a slot."""
        reading = [] if self._reading is None else [self._reading]
        return sum(len(group.sequences) for group in [*reading, *self._groups.values()])

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._reading or self._groups)

    def add(
        self, request_id: str, speaker: Speaker, ids: Sequence[int], sampling: Sampling
    ) -> None:
        """Let a request wait for a slot.

        Raises:
            ContextTooLong: its prompt leaves no room for an answer.
        """
        longest = speaker.model.max_tokens - 1
        if len(ids) > longest:
            raise ContextTooLong(
                f"the prompt has {len(ids)} tokens, and this model takes at most {longest} "
                f"of a context of {longest + 1}"
            )
        self._waiting.append(_Sequence(request_id, speaker, ids, sampling))

    def cancel(self, request_id: str) -> End | None:
        """Free a request's slot at once; None where there is no such request any more."""
        sequence = next((s for s in self._sequences() if s.request_id == request_id), None)
        if sequence is None:
            return None
        end = sequence.end("cancelled")
        self._tidy()
        return end

    def abandon(self, error: Failed) -> list[Reply]:
        """Refuse everything, after a step that failed and left its batch half done."""
        replies: list[Reply] = [
            Refused(request_id=sequence.request_id, error=error) for sequence in self._sequences()
        ]
        self._waiting.clear()
        self._groups.clear()
        self._reading = None
        return replies

    @torch.inference_mode()
    def step(self) -> list[Reply]:
        """One token for every sequence that has a slot, and some of the prompts of the next."""
        replies: list[Reply] = []
        for group in self._groups.values():
            replies += group.decode()
        self._tidy()
        if self._reading is None:
            self._reading = self._admitted()
            if self._reading is not None:
                replies += [sequence.begun() for sequence in self._reading.sequences]
        if self._reading is not None:
            replies += self._reading.read_on()
            self._settle(self._reading)
        return replies

    def _admitted(self) -> _Group | None:
        """Those that waited longest and can be read together: of one speaker, of a like length."""
        if not self._waiting or self.active >= SLOTS:
            return None
        first = self._waiting[0]
        chosen = [sequence for sequence in self._waiting if _alike(first, sequence)]
        chosen = chosen[: SLOTS - self.active]
        taken = set(map(id, chosen))
        self._waiting = deque(s for s in self._waiting if id(s) not in taken)
        return _Group(chosen)

    def _settle(self, reading: _Group) -> None:
        if not reading.read:
            return
        self._reading = None
        if not reading.sequences:
            return
        if group := self._groups.get(reading.speaker):
            group.join(reading)
        else:
            self._groups[reading.speaker] = reading

    def _sequences(self) -> list[_Sequence]:
        groups = list(self._groups.values())
        if self._reading is not None:
            groups.append(self._reading)
        return [*self._waiting, *(s for group in groups for s in group.sequences)]

    def _tidy(self) -> None:
        self._waiting = deque(sequence for sequence in self._waiting if not sequence.over)
        for group in self._groups.values():
            group.drop_ended()
        self._groups = {key: group for key, group in self._groups.items() if group.sequences}
        if self._reading is not None:
            self._reading.drop_ended()
            if not self._reading.sequences:
                self._reading = None


def _tokens_at_once(model: LanguageModel) -> int:
    if model.device.type != "cpu":
        return READ_TOKENS
    weights: int = sum(weight.numel() for weight in model.network.parameters())
    return min(READ_TOKENS, READ_WORK // weights)


def _alike(first: _Sequence, other: _Sequence) -> bool:
    """Whether the other can be read with the first and is not padded to much more than it is."""
    longest, length = len(first.ids), len(other.ids)
    return first.speaker is other.speaker and (
        max(longest, length) <= SHORT or PADDED * longest <= length <= longest
    )
