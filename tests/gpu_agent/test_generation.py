"""What the engine says is what the model alone would say, whoever comes and goes beside it."""

import gc
import random
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from domain.inference import Begun, End, Piece, Refused, Sampling, TokenLogprob
from domain.work import Failed
from gpu_agent import generation
from gpu_agent.decoding import Rows
from gpu_agent.generation import ContextTooLong, Engine, Speaker
from gpu_agent.lora import use
from gpu_agent.protocol import SLOTS
from tests.gpu_agent import babble

LENGTHS = (5, 40, 1, 90, 12)
NEW = 20


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def speakers(folder: Path) -> list[Speaker]:
    """A base model, and the same under two adapters."""
    return voices(folder, "llama")


def voices(folder: Path, kind: str) -> list[Speaker]:
    base = folder / kind
    adapters = [folder / f"{kind}-{seed}" for seed in (1, 2)]
    if not base.exists():
        babble.write_model(base, kind)
        for seed, adapter in enumerate(adapters):
            babble.write_adapter(adapter, base, seed=seed + 1)
    return babble.speaker(base, *adapters)


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(f"{length} {seed}").choices(range(256), k=length)


def greedy(**changes: Any) -> Sampling:
    # One log-probability a token tells which tokens they were.
    return Sampling(**{"temperature": 0.0, "max_tokens": NEW, "top_logprobs": 0} | changes)


def expected(speaker: Speaker, ids: list[int], new: int = NEW) -> bytes:
    """What transformers' own generation says to this prompt alone."""
    use(speaker.model, speaker.weights)
    said = speaker.model.network.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        max_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )
    return b"".join(speaker.texts.shown(token) for token in said[0, len(ids) :].tolist())


@dataclass
class Heard:
    """One request's replies."""

    text: str = ""
    tokens: int = 0
    pieces: list[Piece] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    begun: Begun | None = None
    end: End | None = None
    refused: Refused | None = None

    @property
    def bytes(self) -> bytes:
        return bytes(byte for token in self.logprobs for byte in token.bytes)


class Listener:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.heard: dict[str, Heard] = {}

    def step(self, number: int = 1) -> None:
        for _ in range(number):
            for reply in self.engine.step():
                self.hear(reply)

    def run(self) -> dict[str, Heard]:
        while self.engine.busy:
            self.step()
        return self.heard

    def hear(self, reply: Begun | Piece | End | Refused) -> None:
        heard = self.heard.setdefault(reply.request_id, Heard())
        assert heard.end is None, "nothing follows an end"
        match reply:
            case Begun():
                heard.begun = reply
            case Piece():
                assert heard.begun is not None
                assert reply.number == len(heard.pieces)
                heard.pieces.append(reply)
                heard.text += reply.text
                heard.tokens += reply.tokens
                heard.logprobs += reply.logprobs
            case End():
                heard.end = reply
            case Refused():
                heard.refused = reply


@pytest.fixture
def listener() -> Listener:
    return Listener(Engine())


def alone(speaker: Speaker, ids: list[int], sampling: Sampling) -> Heard:
    listener = Listener(Engine())
    listener.engine.add("alone", speaker, ids, sampling)
    return listener.run()["alone"]


@pytest.mark.parametrize("kind", babble.KINDS)
def test_greedy_tokens_are_those_of_transformers(kind: str, folder: Path) -> None:
    base, first, second = voices(folder, kind)
    listener = Listener(Engine())
    asked = {
        f"{number}": (speaker, prompt(length))
        for number, (speaker, length) in enumerate(
            (speaker, length) for length in LENGTHS for speaker in (base, first, second)
        )
    }

    for request_id, (speaker, ids) in asked.items():
        listener.engine.add(request_id, speaker, ids, greedy())
        listener.step(int(request_id) % 3)
    heard = listener.run()

    for request_id, (speaker, ids) in asked.items():
        assert heard[request_id].bytes == expected(speaker, ids), request_id
    for speaker in (base, first):
        assert alone(speaker, prompt(9), greedy()).bytes == expected(speaker, prompt(9))


def test_adapters_say_other_things(speakers: list[Speaker]) -> None:
    said = {alone(speaker, prompt(9), greedy()).bytes for speaker in speakers}

    assert len(said) == len(speakers)


def test_prompts_are_read_in_parts(
    speakers: list[Speaker], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "READ_TOKENS", 32)
    listener.engine.add("early", speakers[0], prompt(4), greedy())
    listener.step()
    tokens = listener.heard["early"].tokens

    listener.engine.add("longer", speakers[0], prompt(100), greedy())
    listener.engine.add("long", speakers[0], prompt(90), greedy())
    listener.step(3)

    assert listener.heard["long"].begun is not None
    assert not listener.heard["long"].pieces
    assert listener.heard["early"].tokens == tokens + 3
    heard = listener.run()
    assert heard["long"].bytes == expected(speakers[0], prompt(90))
    assert heard["longer"].bytes == expected(speakers[0], prompt(100))


def test_large_model_reads_few_tokens_in_a_step_of_a_cpu(
    speakers: list[Speaker], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(weight.numel() for weight in speakers[0].model.network.parameters())
    monkeypatch.setattr(generation, "READ_WORK", 30 * weights)

    listener.engine.add("long", speakers[0], prompt(90), greedy())
    listener.step(2)

    assert not listener.heard["long"].pieces
    assert listener.run()["long"].bytes == expected(speakers[0], prompt(90))


def test_prompts_of_other_lengths_are_not_padded_to_the_longest(
    speakers: list[Speaker], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    read = Rows.read

    def noted(rows: Rows, ids: Tensor, real: Tensor | None = None) -> Tensor:
        shapes.append(tuple(ids.shape))
        return read(rows, ids, real)

    monkeypatch.setattr(Rows, "read", noted)
    for length in (200, 10, 150, 3, 100):
        listener.engine.add(str(length), speakers[0], prompt(length), greedy(max_tokens=1))
    listener.run()

    assert shapes == [(2, 200), (2, 10), (1, 100)]


def test_same_seed_says_the_same_whatever_runs_beside_it(
    speakers: list[Speaker], listener: Listener
) -> None:
    sampling = Sampling(seed=11, max_tokens=NEW, top_p=0.9, top_k=50)
    for number in range(6):
        listener.engine.add(f"other-{number}", speakers[0], prompt(20, number), Sampling(seed=5))
        listener.step()
    listener.engine.add("asked", speakers[0], prompt(9), sampling)

    beside = listener.run()["asked"].text

    assert beside == alone(speakers[0], prompt(9), sampling).text
    assert beside != alone(speakers[0], prompt(9), sampling.model_copy(update={"seed": 12})).text


def test_stop_string_ends_an_answer_and_is_no_part_of_it(speakers: list[Speaker]) -> None:
    whole = alone(speakers[0], prompt(9), greedy())
    at = next(n for n in range(4, len(whole.text)) if whole.text[n - 1 : n + 2].isascii())
    stop = whole.text[at : at + 2]
    assert whole.text.find(stop) == at

    heard = alone(speakers[0], prompt(9), greedy(stop=(stop, "never said")))

    assert heard.text == whole.text[:at]
    assert heard.end is not None
    assert heard.end.reason == "stop"
    assert heard.end.completion_tokens < NEW
    assert heard.bytes.decode("utf-8", "replace") == heard.text
    assert heard.tokens == heard.end.completion_tokens


def test_end_of_turn_ends_an_answer(speakers: list[Speaker]) -> None:
    whole = alone(speakers[0], prompt(9), greedy())
    last = whole.logprobs[7].bytes
    assert last not in [token.bytes for token in whole.logprobs[:7]]
    (token,) = (token for token in range(256) if speakers[0].texts.of(token) == bytes(last))
    model = replace(speakers[0].model, eos_ids=frozenset({token}))

    heard = alone(Speaker(model, None, speakers[0].texts), prompt(9), greedy())

    assert heard.end is not None
    assert (heard.end.reason, heard.end.completion_tokens) == ("stop", 8)
    assert heard.bytes == whole.bytes[:7]


def test_longest_answer_is_what_was_asked_for_or_what_the_context_leaves(
    speakers: list[Speaker],
) -> None:
    def length(size: int, max_tokens: int | None) -> tuple[str, int]:
        end = alone(speakers[0], prompt(size), greedy(max_tokens=max_tokens)).end
        assert end is not None
        return end.reason, end.completion_tokens

    assert length(9, 1) == ("length", 1)
    assert length(babble.CONTEXT - 6, None) == ("length", 6)
    assert length(babble.CONTEXT - 6, 1000) == ("length", 6)
    assert length(babble.CONTEXT - 1, None) == ("length", 1)


def test_prompt_that_leaves_no_room_is_refused_with_the_numbers(
    speakers: list[Speaker], listener: Listener
) -> None:
    with pytest.raises(ContextTooLong, match=r"256 tokens.* at most 255 of a context of 256"):
        listener.engine.add("1", speakers[0], prompt(babble.CONTEXT), greedy())

    assert not listener.engine.busy


def test_log_probabilities_come_with_every_token(speakers: list[Speaker]) -> None:
    heard = alone(speakers[0], prompt(9), greedy(top_logprobs=3))

    assert len(heard.logprobs) == NEW
    for token in heard.logprobs:
        assert token.logprob <= 0
        assert len(token.top) == 3
        assert token.top[0][2] == token.bytes, "a greedy token is the likeliest"
        assert token.top[0][1] == token.logprob


def test_no_log_probabilities_unless_they_are_asked_for(speakers: list[Speaker]) -> None:
    assert not alone(speakers[0], prompt(9), greedy(top_logprobs=None)).logprobs


def test_what_is_generated_is_counted_and_timed(speakers: list[Speaker]) -> None:
    heard = alone(speakers[0], prompt(9), greedy())

    assert heard.begun is not None
    assert heard.begun.prompt_tokens == 9
    assert heard.end is not None
    assert heard.end.prompt_tokens == 9
    assert heard.end.completion_tokens == heard.tokens == NEW
    assert heard.end.first_token_s is not None
    assert 0 < heard.end.first_token_s < heard.end.seconds


def test_no_more_than_the_slots_are_decoded_at_once(
    speakers: list[Speaker], listener: Listener
) -> None:
    for number in range(SLOTS + 4):
        limit = 3 if number == 0 else NEW
        listener.engine.add(str(number), speakers[number % 3], prompt(9), greedy(max_tokens=limit))

    most = 0
    while listener.engine.busy:
        listener.step()
        most = max(most, listener.engine.active)
        waiting = [h for h in range(SLOTS + 4) if str(h) not in listener.heard]
        assert len(waiting) == listener.engine.waiting

    assert most == SLOTS
    assert all(heard.end for heard in listener.heard.values())


def test_slot_of_one_that_ended_is_taken_before_the_others_end(
    speakers: list[Speaker], listener: Listener
) -> None:
    for number in range(SLOTS):
        limit = 3 if number == 0 else NEW
        listener.engine.add(str(number), speakers[0], prompt(9), greedy(max_tokens=limit))
    listener.engine.add("late", speakers[0], prompt(9), greedy(max_tokens=2))

    while "late" not in listener.heard:
        listener.step()

    assert listener.heard["0"].end is not None
    assert not any(listener.heard[str(number)].end for number in range(1, SLOTS))


def test_cancelled_request_frees_its_slot_at_once(
    speakers: list[Speaker], listener: Listener
) -> None:
    for number in range(SLOTS + 1):
        listener.engine.add(str(number), speakers[0], prompt(9), greedy())
    listener.step(3)
    assert listener.engine.waiting == 1

    end = listener.engine.cancel("5")

    assert end is not None
    assert (end.reason, end.completion_tokens) == ("cancelled", listener.heard["5"].tokens)
    assert listener.engine.active == SLOTS - 1
    listener.step()
    assert listener.engine.waiting == 0
    assert listener.engine.cancel("5") is None


def test_cancelling_spoils_nobody_elses_answer(
    speakers: list[Speaker], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "READ_TOKENS", 32)
    for number, length in enumerate((9, 90, 100, 95, 5)):
        listener.engine.add(str(number), speakers[0], prompt(length), greedy())
    listener.engine.cancel("4")  # while it waits
    listener.step(2)
    listener.engine.add("5", speakers[0], prompt(7), greedy())
    listener.step(2)
    listener.engine.cancel("2")  # while its prompt is read
    listener.step(9)
    listener.engine.cancel("0")  # while it is decoded
    heard = listener.run()

    for number, length in ((1, 90), (3, 95), (5, 7)):
        assert heard[str(number)].bytes == expected(speakers[0], prompt(length))


def test_scores_that_are_no_numbers_are_refused(
    speakers: list[Speaker], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Rows.read

    def broken(rows: Rows, ids: Tensor, real: Tensor | None = None) -> Tensor:
        logits = read(rows, ids, real)
        logits[0] = torch.nan
        return logits

    listener.engine.add("1", speakers[0], prompt(9), greedy())
    listener.step(2)
    monkeypatch.setattr(Rows, "read", broken)
    listener.step()

    assert listener.heard["1"].refused is not None
    assert listener.heard["1"].refused.error.code == "generation_failed"
    assert not listener.engine.busy


def test_abandoned_requests_are_all_refused(speakers: list[Speaker], listener: Listener) -> None:
    for number in range(SLOTS + 3):
        listener.engine.add(str(number), speakers[number % 2], prompt(9), greedy())
    listener.step(3)

    error = Failed(code="out_of_memory", message="", retryable=True)
    refused = listener.engine.abandon(error)

    assert {reply.request_id for reply in refused} == {str(n) for n in range(SLOTS + 3)}
    assert not listener.engine.busy
    assert listener.engine.active == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_and_goes_nothing_is_left(
    seed: int, speakers: list[Speaker], listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "READ_TOKENS", 64)
    dice = random.Random(seed)
    made: list[weakref.ref[Any]] = []
    create = generation._Sequence.__init__

    def noted(sequence: Any, *args: Any) -> None:
        made.append(weakref.ref(sequence))
        create(sequence, *args)

    monkeypatch.setattr(generation._Sequence, "__init__", noted)
    asked: dict[str, tuple[Speaker, list[int]]] = {}
    cancelled: set[str] = set()
    for number in range(50):
        request_id = str(number)
        asked[request_id] = dice.choice(speakers), prompt(dice.choice(LENGTHS), number)
        listener.engine.add(request_id, *asked[request_id], greedy(max_tokens=dice.randint(1, NEW)))
        listener.step(dice.randint(0, 3))
        for victim in dice.sample(sorted(asked), min(len(asked), dice.randint(0, 2))):
            if end := listener.engine.cancel(victim):
                cancelled.add(victim)
                listener.hear(end)
    heard = listener.run()

    assert set(heard) == set(asked)
    assert {key for key, said in heard.items() if said.end and said.end.reason == "cancelled"} == (
        cancelled
    )
    to_the_end = sorted(asked.keys() - cancelled)
    for request_id in dice.sample(to_the_end, 6):
        speaker, ids = asked[request_id]
        assert heard[request_id].bytes == expected(speaker, ids, heard[request_id].tokens)
    assert (listener.engine.active, listener.engine.waiting) == (0, 0)
    gc.collect()
    assert not any(reference() for reference in made)
