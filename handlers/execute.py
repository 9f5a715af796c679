"""The one path from a command to its events: load, decide, append, and once more if someone was first."""

from typing import Any, Final

from domain.errors import VersionConflict
from domain.messages import Command, Decider, Envelope, Outcome
from handlers.authority import admit
from handlers.facts import look_up
from handlers.histories import Histories
from handlers.ports import Clock

MAX_ATTEMPTS: Final = 4  # conflicts are rare and resolve at once; more hides a hot stream


async def execute(
    envelope: Envelope[Command],
    decider: Decider[Any, Any, Any],
    histories: Histories,
    clock: Clock,
) -> Outcome:
    """Decide one command.

    Raises:
        Rejected: The rules say no.
        VersionConflict: Others were first every time; the same command may pass later.
        StoreUnavailable: The log is away.
    """
    admitted = admit(envelope)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        history = await histories.load(envelope.stream, decider)
        if done := history.outcome_of(envelope.id):
            return done  # redelivered; deciding again could undo what came later
        command = await look_up(admitted, envelope.stream.workspace, histories)
        events = decider.decide(command, history.state)
        if not events:
            return Outcome(status="unchanged", sequence=history.revision)
        try:
            sequence = await histories.append(
                envelope.stream,
                events,
                expected_revision=history.revision,
                cause=envelope,
                recorded_at=clock(),
            )
        except VersionConflict:
            if attempt == MAX_ATTEMPTS:
                raise
        else:
            return Outcome(status="recorded", sequence=sequence)
    raise AssertionError("the last attempt returns or raises")
