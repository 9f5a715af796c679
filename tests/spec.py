"""Given what happened, when somebody asks for something, then this happens: tests of pure rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from domain.errors import Rejected
from domain.messages import Command, Decider, Event


@dataclass(frozen=True)
class Spec:
    decider: Decider[Any, Any, Any]

    def given(self, *events: Event) -> "Given":
        return Given(self.decider, events)

    def when(self, command: Command) -> "When":
        return self.given().when(command)


@dataclass(frozen=True)
class Given:
    decider: Decider[Any, Any, Any]
    events: Sequence[Event]

    def when(self, command: Command) -> "When":
        return When(self.decider, self.events, command)

    def then_state(self, expected: object) -> None:
        assert self.decider.fold(self.events) == expected


@dataclass(frozen=True)
class When:
    decider: Decider[Any, Any, Any]
    events: Sequence[Event]
    command: Command

    def decide(self) -> list[Event]:
        return list(self.decider.decide(self.command, self.decider.fold(self.events)))

    def then(self, *expected: Event) -> None:
        assert self.decide() == list(expected)

    def then_nothing(self) -> None:
        assert self.decide() == []

    def then_rejected(self, refusal: type[Rejected], match: str | None = None) -> None:
        with pytest.raises(Rejected, match=match) as raised:
            self.decide()
        assert type(raised.value) is refusal
