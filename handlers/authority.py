"""Who may send which command, and where to: asked before any rule is."""

from typing import Final

from domain.access.access import access_id
from domain.access.commands import RevokeKey
from domain.agents.commands import EnrolAgent
from domain.catalog import aggregate_of
from domain.datasets.commands import DeleteDataset, RecordValidation
from domain.dead_letters.commands import DiscardDeadLetter, RetryDeadLetter
from domain.dead_letters.dead_letter import letter_id
from domain.errors import Rejected
from domain.evaluations.commands import (
    ClaimEvaluation,
    ExpireEvaluationLease,
    FailEvaluation,
    RecordResult,
    ReleaseEvaluation,
    RunEvaluation,
)
from domain.job_logs.commands import ArchiveLogs
from domain.jobs.commands import (
    CancelJob,
    ClaimJob,
    CompleteJob,
    ExpireLease,
    FailJob,
    RecordCheckpoint,
    RecordEpoch,
    RecordStart,
    ReleaseJob,
    SubmitJob,
)
from domain.messages import Command, Envelope
from domain.model_versions.commands import RecordFailure, RecordReady, RegisterVersion
from domain.models.commands import CreateModel, NumberVersion
from domain.queues.commands import (
    Assign,
    Enqueue,
    OfferSlots,
    Reprioritise,
    Withdraw,
    WithdrawSlots,
)
from domain.queues.queue import queue_id
from domain.subjects import (
    DELIVERY_SOURCE,
    GATEWAY_SOURCE,
    OPERATOR_SOURCE,
    REACTION_SOURCE,
    Aggregate,
)
from domain.webhooks.commands import DisableWebhook

PEOPLE: Final = frozenset({GATEWAY_SOURCE, OPERATOR_SOURCE})
JOB_REPORTS: Final = (
    ClaimJob,
    RecordStart,
    RecordEpoch,
    RecordCheckpoint,
    CompleteJob,
    FailJob,
    ReleaseJob,
)
EVALUATION_REPORTS: Final = (ClaimEvaluation, RecordResult, FailEvaluation, ReleaseEvaluation)
REACTIONS_ONLY: Final = (
    RecordValidation,
    Enqueue,
    Assign,
    Reprioritise,
    Withdraw,
    OfferSlots,
    WithdrawSlots,
    CreateModel,
    NumberVersion,
    RegisterVersion,
    RecordReady,
    RecordFailure,
    ExpireLease,
    ExpireEvaluationLease,
    ArchiveLogs,
)
REACTIONS_TOO: Final = (RunEvaluation, RevokeKey, DeleteDataset, CancelJob)
ID_FIELDS: Final[dict[Aggregate, str]] = {
    "dataset": "dataset_id",
    "job": "job_id",
    "model": "model_id",
    "model_version": "version_id",
    "evaluation": "evaluation_id",
    "agent": "agent_id",
    "link": "link_id",
    "webhook": "webhook_id",
    "job_log": "job_id",
    "person": "person_id",
}


class ForbiddenSource(Rejected):
    """This sender may not ask for that."""

    code = "forbidden_source"


class Misaddressed(Rejected):
    """The command speaks of another thing than the subject it was sent to."""

    code = "misaddressed"


def admit(envelope: Envelope[Command]) -> Command:
    """Give the command as its sender may send it; who a report or a submission is from is not its word.

    Raises:
        ForbiddenSource, Misaddressed: It may not.
    """
    _check_address(envelope)
    command, source = envelope.command, envelope.source
    if isinstance(command, JOB_REPORTS + EVALUATION_REPORTS):
        if source in {*PEOPLE, REACTION_SOURCE, DELIVERY_SOURCE}:
            raise ForbiddenSource(f"{type(command).__name__} comes from agents, not from {source}")
        return command.model_copy(update={"agent_id": source})
    if not _may_send(command, source):
        raise ForbiddenSource(f"{source} may not send {type(command).__name__}")
    if isinstance(command, SubmitJob):
        return command.model_copy(update={"submitted_by": envelope.actor})
    return command


def _may_send(command: Command, source: str) -> bool:
    if isinstance(command, EnrolAgent):
        return source == str(command.agent_id)
    if source == DELIVERY_SOURCE:
        return isinstance(command, DisableWebhook) and command.by == "gone"
    if isinstance(command, DisableWebhook) and command.by == "gone":
        return False
    if isinstance(command, REACTIONS_ONLY):
        return source == REACTION_SOURCE
    return source in PEOPLE or (source == REACTION_SOURCE and isinstance(command, REACTIONS_TOO))


def _check_address(envelope: Envelope[Command]) -> None:
    stream, command = envelope.stream, envelope.command
    aggregate = aggregate_of(command)
    if aggregate == "queue":
        meant = queue_id(stream.workspace)
    elif aggregate == "access":
        meant = access_id(stream.workspace)
    elif isinstance(command, RetryDeadLetter | DiscardDeadLetter):
        meant = letter_id(stream.workspace, command.letter.sequence)
    else:
        meant = getattr(command, ID_FIELDS[aggregate])
    if (aggregate, meant) != (stream.aggregate, stream.id):
        name = type(command).__name__
        raise Misaddressed(
            f"{name} of {aggregate} {meant} was sent to {stream.aggregate} {stream.id}"
        )
