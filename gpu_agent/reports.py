"""What an attempt says to the log: as commands, in order, each until it is decided."""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID, uuid5

from typing_extensions import override

from domain.context import current
from domain.errors import BusUnavailable, CommandTimeout
from domain.evaluations.commands import ClaimEvaluation, FailEvaluation, ReleaseEvaluation
from domain.jobs.commands import ClaimJob, FailJob, ReleaseJob
from domain.messages import Command, Envelope, Outcome, StreamId
from domain.work import EvaluateAssignment, TrainAssignment
from gpu_agent.ports import Commands

FIRST_TIMEOUT_S: Final = 5.0  # a decision takes milliseconds
# Every further try puts the command into the stream once more: hundreds an hour are nothing to it.
LONGEST_TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 0.5
MAX_REASON: Final = 2_000  # characters; a library's message can be as long as a book
# Refusals after which nothing that this attempt says will be heard.
FENCED: Final = frozenset({"stale_attempt", "not_yours", "not_found"})

_log = logging.getLogger(__name__)


class Fenced(Exception):
    """The work is no longer this attempt's: it must stop at once and say no more."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which try at which work."""

    workspace: str
    kind: Literal["job", "evaluation"]
    work_id: UUID
    number: int
    correlation_id: UUID
    causation_id: UUID | None = None  # the event by which it was given

    @classmethod
    def of(cls, assignment: TrainAssignment | EvaluateAssignment) -> "Attempt":
        workspace, number = assignment.workspace, assignment.attempt
        why = assignment.correlation_id, assignment.causation_id
        if isinstance(assignment, TrainAssignment):
            return cls(workspace, "job", assignment.job_id, number, *why)
        return cls(workspace, "evaluation", assignment.evaluation_id, number, *why)

    @property
    def key(self) -> tuple[UUID, int]:
        return self.work_id, self.number

    def claim(self, boot_id: str) -> Command:
        if self.kind == "job":
            return ClaimJob(job_id=self.work_id, attempt=self.number, boot_id=boot_id)
        return ClaimEvaluation(evaluation_id=self.work_id, attempt=self.number, boot_id=boot_id)

    def failed(self, code: str, message: str) -> Command:
        message = message[:MAX_REASON]
        if self.kind == "job":
            return FailJob(job_id=self.work_id, attempt=self.number, code=code, message=message)
        return FailEvaluation(
            evaluation_id=self.work_id, attempt=self.number, code=code, message=message
        )

    def released(self, reason: str) -> Command:
        reason = reason[:MAX_REASON]
        if self.kind == "job":
            return ReleaseJob(job_id=self.work_id, attempt=self.number, reason=reason)
        return ReleaseEvaluation(evaluation_id=self.work_id, attempt=self.number, reason=reason)

    @override
    def __str__(self) -> str:
        return f"attempt {self.number} of {self.kind} {self.work_id}"


class Reports:
    """The one voice of an attempt; its callers send one report after another."""

    def __init__(self, attempt: Attempt, agent_id: str, boot_id: str, commands: Commands) -> None:
        self._attempt = attempt
        self._agent_id = agent_id
        self._boot_id = boot_id
        self._commands = commands
        self._counts: Counter[str] = Counter()

    async def claim(self) -> bool:
        """Tell whether the attempt is now this process's."""
        outcome = await self._decided(self._attempt.claim(self._boot_id), f"claim:{self._boot_id}")
        if outcome.status in {"rejected", "failed"}:
            _log.info("%s was refused: %s", self._attempt, outcome.message)
            return False
        return True

    async def send(self, command: Command) -> Outcome:
        """Report; what was said before is what was decided, so a repeat changes nothing.

        Raises:
            Fenced: The attempt has lost its work.
        """
        kind = type(command).__name__
        self._counts[kind] += 1
        outcome = await self._decided(command, f"{kind}:{self._counts[kind]}")
        if outcome.code in FENCED:
            raise Fenced(outcome.message)
        if outcome.status in {"rejected", "failed"}:
            _log.error("%s of %s: %s", kind, self._attempt, outcome.message or outcome.status)
        return outcome

    async def _decided(self, command: Command, name: str) -> Outcome:
        attempt = self._attempt
        envelope = Envelope(
            id=uuid5(attempt.work_id, f"{attempt.number}:{name}"),
            stream=StreamId(attempt.workspace, attempt.kind, attempt.work_id),
            source=self._agent_id,
            actor=f"agent:{self._agent_id}",
            correlation_id=attempt.correlation_id,
            causation_id=attempt.causation_id,
            sent_at=datetime.now(UTC),
            command=command,
            traceparent=current().traceparent,
        )
        return await send_until_decided(self._commands, envelope)


async def send_until_decided(commands: Commands, envelope: Envelope[Command]) -> Outcome:
    """Send the same command again for as long as the log or its handlers are away."""
    timeout_s = FIRST_TIMEOUT_S
    while True:
        try:
            return await commands.send(envelope, timeout_s=timeout_s)
        except (CommandTimeout, BusUnavailable) as problem:
            _log.info("%s is sent again: %s", type(envelope.command).__name__, problem)
        timeout_s = min(2 * timeout_s, LONGEST_TIMEOUT_S)
        await asyncio.sleep(PAUSE_S)
