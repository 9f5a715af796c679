"""Sealed texts: one spelling, one key, one person, one place."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.xchacha_sealer import XChaChaSealer
from domain.sealing import MAX_SEALED, NONCE_BYTES, TAG_BYTES, Sealed, is_sealed, parse, person_of

KEYS = st.binary(min_size=32, max_size=32)
BOXES = st.binary(min_size=NONCE_BYTES + TAG_BYTES, max_size=300)
FIELDS = st.sampled_from(["person.name", "key.name", "key.address", "dataset.name"])
SEALER = XChaChaSealer()


@given(st.uuids(), BOXES)
def test_a_sealed_text_is_read_as_it_was_written(person: UUID, box: bytes) -> None:
    sealed = Sealed(person, box)

    assert parse(sealed.text) == sealed
    assert person_of(sealed.text) == person


@given(st.text())
def test_what_nobody_sealed_is_clear_text_however_it_looks(text: str) -> None:
    assert not is_sealed(text)
    assert not is_sealed(f"sealed:v1:{text}")


@given(KEYS, st.uuids(), FIELDS, st.text(max_size=200))
def test_the_key_opens_what_it_sealed(key: bytes, person: UUID, field: str, text: str) -> None:
    sealed = SEALER.seal(key, person, field, text)  # type: ignore[arg-type]  # one of them

    assert SEALER.open(key, field, sealed) == text  # type: ignore[arg-type]
    assert person_of(sealed) == person
    assert len(sealed) <= MAX_SEALED


@given(KEYS, KEYS, st.uuids(), st.uuids(), FIELDS, FIELDS)
def test_nothing_else_opens_it(
    key: bytes, other: bytes, person: UUID, somebody: UUID, field: str, place: str
) -> None:
    sealed = SEALER.seal(key, person, field, "Ana")  # type: ignore[arg-type]
    moved = Sealed(somebody, parse(sealed).box).text

    assert SEALER.open(other, field, sealed) == ("Ana" if other == key else None)  # type: ignore[arg-type]
    assert SEALER.open(key, place, sealed) == ("Ana" if place == field else None)  # type: ignore[arg-type]
    assert SEALER.open(key, field, moved) == ("Ana" if somebody == person else None)  # type: ignore[arg-type]


@given(KEYS, st.uuids(), st.integers(min_value=0), st.integers(0, 7))
def test_an_altered_bit_is_noticed(key: bytes, person: UUID, at: int, bit: int) -> None:
    box = bytearray(parse(SEALER.seal(key, person, "key.name", "Ana")).box)
    box[at % len(box)] ^= 1 << bit

    assert SEALER.open(key, "key.name", Sealed(person, bytes(box)).text) is None


def test_the_same_text_is_sealed_differently_each_time() -> None:
    key, person = bytes(32), UUID(int=1)

    assert len({SEALER.seal(key, person, "key.name", "Ana") for _ in range(50)}) == 50


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_what_was_cut_off_is_no_sealed_text(cut: int) -> None:
    text = Sealed(UUID(int=1), bytes(40)).text

    with pytest.raises(ValueError, match="sealed text"):
        parse(text[:-cut])
