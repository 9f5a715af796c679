"""Old payloads are read as today's events, by way of every version in between."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import catalog
from domain.catalog import EVENTS, UPCASTS, UnknownType, decode_event
from domain.messages import Event
from domain.upcasting import Upcasts, missing, upcast

GOLDEN = Path(__file__).parent / "golden_upcasts"


class BoxMeasured(Event):
    """An event whose shape has changed twice: grams became kilograms, a name became two."""

    type: Literal["BoxMeasured"] = "BoxMeasured"
    schema_version: ClassVar[int] = 3
    kilograms: float
    first_name: str
    last_name: str
    tags: tuple[str, ...] = ()


def _kilograms(payload: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in payload.items() if name != "grams"}
    return rest | {"kilograms": payload["grams"] / 1000}


def _names(payload: dict[str, Any]) -> dict[str, Any]:
    first, _, last = payload["by"].partition(" ")
    rest = {name: value for name, value in payload.items() if name != "by"}
    return rest | {"first_name": first, "last_name": last}


STEPS: Upcasts = {("BoxMeasured", 1): _kilograms, ("BoxMeasured", 2): _names}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    events = MappingProxyType({**EVENTS, "BoxMeasured": ("job", BoxMeasured)})
    monkeypatch.setattr(catalog, "EVENTS", events)
    monkeypatch.setattr(catalog, "UPCASTS", STEPS)


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_each_version_as_it_was_written_is_the_same_event_today(known: None, path: Path) -> None:
    name, version = path.name.removesuffix(".json").split(".v")

    event = decode_event(name, int(version), path.read_bytes())

    assert event == BoxMeasured(
        kilograms=1.5, first_name="Ada", last_name="Lovelace", tags=("fragile",)
    )


words = st.text(st.characters(codec="utf-8", exclude_characters=" "), min_size=1)
first_versions = st.fixed_dictionaries(
    {"type": st.just("BoxMeasured"), "grams": st.integers(0, 10**9), "by": words},
    optional={"tags": st.lists(words), "of a newer writer": st.none() | words | st.floats(0, 1)},
)


@given(first_versions)
def test_it_does_not_matter_where_on_the_way_a_payload_was_written(payload: dict[str, Any]) -> None:
    second = _kilograms(payload)
    third = _names(second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "EVENTS", {"BoxMeasured": ("job", BoxMeasured)})
        patch.setattr(catalog, "UPCASTS", STEPS)

        read = {
            version: decode_event("BoxMeasured", version, json.dumps(written).encode())
            for version, written in ((1, payload), (2, second), (3, third))
        }

    assert read[1] == read[2] == read[3] == BoxMeasured.model_validate(third)


@given(first_versions, st.integers(1, 3))
def test_what_no_step_speaks_of_is_carried_along(payload: dict[str, Any], to: int) -> None:
    written = json.dumps(payload).encode()

    found = json.loads(upcast("BoxMeasured", 1, to, written, STEPS))

    assert {k: v for k, v in found.items() if k in {"type", "tags", "of a newer writer"}} == {
        k: v for k, v in payload.items() if k not in {"grams", "by"}
    }


def test_a_version_from_the_future_is_unknown_and_one_from_before_the_first_is_damage(
    known: None,
) -> None:
    with pytest.raises(UnknownType):
        decode_event("BoxMeasured", 4, b"{}")
    with pytest.raises(ValueError, match="no version 0"):
        decode_event("BoxMeasured", 0, b"{}")


@pytest.mark.parametrize("damaged", [b"", b"[]", b"1", b"{", b"\xff"])
def test_a_damaged_payload_of_an_older_version_is_said_to_be_damaged(
    known: None, damaged: bytes
) -> None:
    with pytest.raises(ValueError):
        decode_event("BoxMeasured", 1, damaged)


def test_a_step_that_is_missing_is_found() -> None:
    assert missing([("BoxMeasured", 3)], STEPS) == []
    assert missing([("BoxMeasured", 4), ("Other", 1)], STEPS) == [("BoxMeasured", 3)]


def test_every_event_of_this_build_can_be_read_from_its_first_version_on() -> None:
    versions = [(name, class_.schema_version) for name, (_, class_) in EVENTS.items()]

    assert missing(versions, UPCASTS) == []
