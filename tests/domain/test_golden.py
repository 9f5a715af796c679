"""Every event that was ever written can be read for ever."""

import json
from pathlib import Path

import pytest

from domain.catalog import EVENTS, UnknownType, decode_event

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_a_payload_as_it_was_shipped_is_read_without_loss(path: Path) -> None:
    name, version = path.name.removesuffix(".json").split(".v")

    event = decode_event(name, int(version), path.read_bytes())

    assert type(event).__name__ == name
    if int(version) == type(event).schema_version:
        shipped = json.loads(path.read_bytes())
        assert event.model_dump(mode="json").items() >= shipped.items()


def test_a_field_of_a_newer_writer_is_passed_over() -> None:
    event = decode_event("KeyRevoked", 1, b'{"key_id": "Ab3dEf7h", "reason": "leaked"}')

    assert event.model_dump() == {"type": "KeyRevoked", "key_id": "Ab3dEf7h"}


def test_a_version_from_the_future_is_not_guessed_at() -> None:
    with pytest.raises(UnknownType):
        decode_event("KeyRevoked", 2, b'{"key_id": "Ab3dEf7h"}')
    with pytest.raises(UnknownType):
        decode_event("KeyForgotten", 1, b"{}")


def test_a_damaged_payload_is_not_read() -> None:
    with pytest.raises(ValueError, match="key_id"):
        decode_event("KeyRevoked", 1, b"{}")


def test_there_is_something_to_read() -> None:
    assert len(GOLDEN) >= len(EVENTS)
