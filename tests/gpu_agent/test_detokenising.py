"""Text that comes a token at a time is the text that all tokens make together."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from domain.inference import TokenLogprob
from gpu_agent.detokenising import StopStrings, TextStream, TokenTexts
from tests.gpu_agent import babble

TEXT = "naïve café – 東京 🙂🙃 end"


def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama 2's kind: spaces are letters, what is unknown is written in bytes, the first space goes."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁he", "l", "lo"]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def streamed(tokenizer: PreTrainedTokenizerFast, ids: list[int], *stops: str) -> list[str]:
    stream = TextStream(TokenTexts(tokenizer), stops)
    parts = [stream.feed(token) for token in ids]
    parts.append(stream.finish())
    return [part.text for part in parts if part is not None]


def test_parts_make_the_tokenizers_own_text() -> None:
    tokenizer = babble.tokenizer()
    for seed in range(40):
        ids = random.Random(seed).choices(range(len(tokenizer)), k=30)
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_parts_make_the_text_of_sentencepiece_too() -> None:
    tokenizer = sentencepiece()
    words = [*(pieces_of(char) for char in TEXT if char != " "), ["▁"], ["▁he"], ["l"], ["lo"]]
    for seed in range(40):
        chosen = [piece for word in random.Random(seed).choices(words, k=20) for piece in word]
        ids = tokenizer.convert_tokens_to_ids(chosen)
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def pieces_of(char: str) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in char.encode()]


def test_characters_come_whole() -> None:
    tokenizer = babble.tokenizer()
    ids = tokenizer.encode(TEXT)

    parts = streamed(tokenizer, ids)

    assert len(ids) > len(TEXT)
    assert parts == list(TEXT)


def test_half_a_character_at_the_end_is_marked() -> None:
    tokenizer = babble.tokenizer()

    assert streamed(tokenizer, tokenizer.encode("a🙂")[:-1]) == ["a", "�"]


def test_first_space_goes_where_the_tokenizer_drops_it() -> None:
    tokenizer = sentencepiece()
    ids = tokenizer.convert_tokens_to_ids(["▁he", "l", "lo", "▁he"])

    assert streamed(tokenizer, ids) == ["he", "l", "lo", " he"]


def test_token_that_the_tokenizer_does_not_know_adds_nothing() -> None:
    assert TokenTexts(babble.tokenizer()).of(100_000) == b""


@pytest.mark.parametrize(
    ("parts", "stops", "said"),
    [
        (["one STOP two"], ["STOP"], "one "),
        (["one ST", "OP two"], ["STOP"], "one "),
        (["one S", "T", "O", "P", " two"], ["STOP"], "one "),
        (["one ST", "ART"], ["STOP"], "one START"),
        (["aab"], ["b", "ab"], "a"),  # the one that begins first
        (["abcx"], ["bcd", "c"], "ab"),
        (["a", "a", "a", "b"], ["aab"], "a"),
        (["no end S"], ["STOP"], "no end S"),
        (["text"], [""], "text"),
        (["text"], [], "text"),
    ],
)
def test_nothing_of_a_stop_string_is_said(parts: list[str], stops: list[str], said: str) -> None:
    strings = StopStrings(stops)

    text = "".join(strings.feed(part) for part in parts)

    assert strings.found == ("".join(parts) != said)
    assert text + strings.finish() == said


def test_what_cannot_become_a_stop_string_is_not_held_back() -> None:
    strings = StopStrings(["\n\nUser:"])

    assert [strings.feed(part) for part in ("a\n", "\nUs", "e", "x")] == ["a", "", "", "\n\nUsex"]


def logprob(token: str) -> TokenLogprob:
    return TokenLogprob(token=token, logprob=-1.0, bytes=tuple(token.encode()))


def test_tokens_come_with_the_text_they_made_and_those_of_a_stop_string_not_at_all() -> None:
    tokenizer = babble.tokenizer()
    stream = TextStream(TokenTexts(tokenizer), ["##"])
    given = []
    for char in "a#b##":
        part = stream.feed(tokenizer.encode(char)[0], logprob(char))
        if part is not None:
            given.append((part.text, part.tokens, "".join(p.token for p in part.logprobs)))

    assert stream.stopped
    assert given == [("a", 1, "a"), ("#b", 2, "#b"), ("", 2, "")]


def test_tokens_that_were_held_back_come_at_the_end() -> None:
    tokenizer = babble.tokenizer()
    stream = TextStream(TokenTexts(tokenizer), ["##"])
    assert stream.feed(tokenizer.encode("#")[0], logprob("#")) is None

    last = stream.finish()

    assert last is not None
    assert (last.text, last.tokens, len(last.logprobs)) == ("#", 1, 1)
