"""Every event that was ever written can be read for ever."""

import json
from pathlib import Path
from typing import Any

import pytest

from domain.catalog import EVENTS, UnknownType, decode_event

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.json"))
LANGUAGE_MODELS = sorted((HERE / "golden_language_models").glob("*.json"))
QUEUE = sorted((HERE / "golden_queue").glob("*.json"))
TRAINING = sorted((HERE / "golden_training").glob("*.json"))
TABLES = sorted((HERE / "golden_tables").glob("*.json"))
FORMATS = sorted((HERE / "golden_formats").glob("*.json"))
ALL = GOLDEN + LANGUAGE_MODELS + QUEUE + TRAINING + FORMATS + TABLES


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_a_payload_as_it_was_shipped_is_read_without_loss(path: Path) -> None:
    name, version = path.name.removesuffix(".json").split(".v")

    event = decode_event(name, int(version), path.read_bytes())

    assert type(event).__name__ == name
    if int(version) == type(event).schema_version:
        shipped = json.loads(path.read_bytes())
        assert lost(shipped, event.model_dump(mode="json")) == []


def lost(shipped: Any, read: Any, path: str = "") -> list[str]:
    """Where the event says something else than its payload; fields that came later may be more."""
    if isinstance(shipped, dict) and isinstance(read, dict):
        pairs = [(f"{path}.{key}", value, read.get(key)) for key, value in shipped.items()]
        return [wrong for name, old, new in pairs for wrong in lost(old, new, name)]
    if isinstance(shipped, list) and isinstance(read, list) and len(shipped) == len(read):
        pairs = [(f"{path}[{n}]", *both) for n, both in enumerate(zip(shipped, read, strict=True))]
        return [wrong for name, old, new in pairs for wrong in lost(old, new, name)]
    return [] if shipped == read else [f"{path}: {shipped!r} became {read!r}"]


def test_what_a_payload_loses_is_found_however_deep_it_stands() -> None:
    shipped = {"a": [{"b": 1}], "c": 2}

    assert lost(shipped, {"a": [{"b": 1, "later": 0}], "c": 2}) == []
    assert lost(shipped, {"a": [{"b": 3}], "c": 2}) == [".a[0].b: 1 became 3"]
    assert lost(shipped, {"a": [], "c": 2}) == [".a: [{'b': 1}] became []"]


def test_a_field_of_a_newer_writer_is_passed_over() -> None:
    event = decode_event("KeyRevoked", 1, b'{"key_id": "Ab3dEf7h", "reason": "leaked"}')

    assert event.model_dump() == {"type": "KeyRevoked", "key_id": "Ab3dEf7h"}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_fields_of_a_newer_writer_are_passed_over_however_deep_they_stand(path: Path) -> None:
    name, version = path.name.removesuffix(".json").split(".v")
    shipped = json.loads(path.read_bytes())

    event = decode_event(name, int(version), json.dumps(grown(shipped)).encode())

    if int(version) == type(event).schema_version:
        assert lost(shipped, event.model_dump(mode="json")) == []


def grown(payload: Any) -> Any:
    """The same with a field more in everything."""
    if isinstance(payload, list):
        return [grown(each) for each in payload]
    if not isinstance(payload, dict) or not payload:
        return payload
    # What is a table of names and values stays one.
    kinds = {type(value) for value in payload.values()}
    later = next(iter(payload.values())) if len(kinds) == 1 else ["later"]
    return {**{key: grown(value) for key, value in payload.items()}, "later": later}


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
