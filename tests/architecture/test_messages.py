"""House rules of messages: one union each, a name that is its type, a payload that is kept for ever."""

import importlib
import pkgutil
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import domain
from domain.catalog import _COMMANDS, _EVENTS, COMMANDS, EVENTS
from domain.jobs.commands import DatasetFacts, QueueFacts
from domain.messages import Command, Event
from handlers.reactions import REACTIONS

GOLDEN = Path(__file__).parents[1] / "domain" / "golden"
PARTS = {DatasetFacts, QueueFacts}  # stand inside commands and are never sent


def _all(base: type) -> set[type]:
    for module in pkgutil.walk_packages(domain.__path__, "domain."):
        importlib.import_module(module.name)
    found: set[type] = set()
    waiting: list[type] = [base]
    while waiting:
        subclasses: list[type] = waiting.pop().__subclasses__()
        for class_ in subclasses:
            waiting.append(class_)
            if class_.__module__.startswith("domain.") and not class_.__name__.startswith("_"):
                found.add(class_)
    return found


def _members(union: Any) -> tuple[type, ...]:
    """A union of one is that one."""
    return get_args(union) or (union,)


def test_each_event_is_in_exactly_one_union() -> None:
    members = Counter(class_ for union in _EVENTS.values() for class_ in _members(union))

    assert set(members) == _all(Event)
    assert set(members.values()) == {1}


def test_each_command_is_in_exactly_one_union() -> None:
    members = Counter(class_ for union in _COMMANDS.values() for class_ in _members(union))

    assert set(members) == _all(Command) - PARTS
    assert set(members.values()) == {1}


def test_a_message_is_called_as_its_type_says() -> None:
    for catalog in (COMMANDS, EVENTS):
        for name, (_, class_) in catalog.items():
            assert class_.model_fields["type"].default == name


def test_each_version_of_each_event_has_a_golden_payload() -> None:
    wanted = {
        f"{name}.v{version}.json"
        for name, (_, class_) in EVENTS.items()
        for version in range(1, class_.schema_version + 1)
    }

    assert {path.name for path in GOLDEN.iterdir()} == wanted


def test_reactions_are_to_events() -> None:
    assert {type_.__name__ for type_ in REACTIONS} <= set(EVENTS)
