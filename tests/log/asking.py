"""Commands on a few things, each of them plausible often enough to be taken and often enough not."""

from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid5

from hypothesis import strategies as st

from domain.access.access import access_id
from domain.access.commands import IssueKey, RevokeKey
from domain.access.events import Role
from domain.agents.commands import DrainAgent, EnrolAgent, RevokeAgent
from domain.datasets.commands import DeleteDataset, RecordValidation, RegisterDataset
from domain.evaluations.commands import (
    CancelEvaluation,
    ClaimEvaluation,
    ExpireEvaluationLease,
    FailEvaluation,
    RecordResult,
    ReleaseEvaluation,
    RunEvaluation,
)
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
from domain.messages import Command, StreamId
from domain.model_versions.commands import RecordFailure, RecordReady, RegisterVersion
from domain.models.commands import ActivateModel, CreateModel, NumberVersion
from domain.queues.commands import Assign, Enqueue, OfferSlots, Withdraw
from domain.queues.events import WorkKind
from domain.queues.queue import queue_id
from domain.subjects import Aggregate, derived_id
from tests import samples as s

Asked = tuple[Command, StreamId, str]  # with the source that it comes from
Make = Callable[["Things", int, int], tuple[Command, Aggregate, UUID, str]]

SPACE: Final = UUID("4b9b0d3c-0000-7000-8000-000000000000")
FEW: Final = 2  # of each kind: so few that commands meet


class Things:
    """The ids of one workspace."""

    def __init__(self, workspace: str) -> None:
        self.workspace = workspace
        self.queue = queue_id(workspace)
        self.access = access_id(workspace)

    def id(self, kind: str, n: int) -> UUID:
        if kind == "model":  # the name makes the id
            return derived_id(self.workspace, "model", f"model-{n}")
        return uuid5(SPACE, f"{self.workspace} {kind} {n}")


def _register_dataset(t: Things, n: int, _: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("dataset", n)
    command = RegisterDataset(
        dataset_id=id_,
        name=f"rows {n}.csv",
        blob=s.blob(n + 1),
        format="csv",
        delimiter=",",
        text_column="text",
        label_column="label",
        rows=40,
        labels={"a": 20, "b": 20},
    )
    return command, "dataset", id_, "gateway"


def _validate(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("dataset", n)
    problem = {"problem_code": "one_label", "problem": "only one label"} if m else {}
    return RecordValidation(dataset_id=id_, **problem), "dataset", id_, "reaction"


def _submit(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("job", n)
    command = SubmitJob(job_id=id_, model_name=f"model-{n}", dataset_id=t.id("dataset", m))
    return command, "job", id_, "gateway"


def _start(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("job", n)
    command = RecordStart(
        job_id=id_,
        attempt=1,
        environment=s.ENVIRONMENT,
        total_steps=40,
        total_epochs=2,
        first_step=0,
        train_rows=32,
        validation_rows=4,
        test_rows=4,
        trainable_parameters=10,
        total_parameters=100,
    )
    return command, "job", id_, str(t.id("agent", m))


def _epoch(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("job", n)
    command = RecordEpoch(job_id=id_, attempt=1, epoch=m, step=20 * m, train_loss=0.5, seconds=1.5)
    return command, "job", id_, str(t.id("agent", 0))


def _checkpoint(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("job", n)
    command = RecordCheckpoint(job_id=id_, attempt=1, checkpoint=s.checkpoint(10 * (m + 1)))
    return command, "job", id_, str(t.id("agent", 0))


def _complete(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("job", n)
    command = CompleteJob(
        job_id=id_,
        attempt=m + 1,
        adapter=s.ADAPTER,
        labels=("a", "b"),
        train_rows=32,
        trained_tokens=640,
        steps=40,
        seconds=3.0,
        final_loss=0.25,
    )
    return command, "job", id_, str(t.id("agent", 0))


def _register_version(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("version", n)
    command = RegisterVersion(
        version_id=id_,
        model_id=t.id("model", m),
        model_name=f"model-{m}",
        number=n + 1,
        label=f"v{n + 1}",
        job_id=t.id("job", n),
        spec=s.SPEC,
        environment=s.ENVIRONMENT,
        labels=("a", "b"),
        files=s.ADAPTER,
        train_rows=32,
        trained_tokens=640,
        steps=40,
        seconds=3.0,
        final_loss=0.25,
    )
    return command, "model_version", id_, "reaction"


def _result(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("evaluation", n)
    command = RecordResult(evaluation_id=id_, attempt=1, summary=s.SUMMARY, outputs=s.blob(9))
    return command, "evaluation", id_, str(t.id("agent", m))


def _job(command: Callable[..., Command], source: str = "", **fields: object) -> Make:
    def make(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
        id_ = t.id("job", n)
        return command(job_id=id_, **fields), "job", id_, source or str(t.id("agent", m))

    return make


def _evaluation(command: Callable[..., Command], source: str = "", **fields: object) -> Make:
    def make(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
        id_ = t.id("evaluation", n)
        return (
            command(evaluation_id=id_, **fields),
            "evaluation",
            id_,
            source or str(t.id("agent", m)),
        )

    return make


def _version(command: Callable[..., Command], **fields: object) -> Make:
    def make(t: Things, n: int, _: int) -> tuple[Command, Aggregate, UUID, str]:
        id_ = t.id("version", n)
        return command(version_id=id_, **fields), "model_version", id_, "reaction"

    return make


def _agent(command: Callable[..., Command], *, own: bool = False, **fields: object) -> Make:
    def make(t: Things, n: int, _: int) -> tuple[Command, Aggregate, UUID, str]:
        id_ = t.id("agent", n)
        return command(agent_id=id_, **fields), "agent", id_, str(id_) if own else "gateway"

    return make


def _dataset_deleted(t: Things, n: int, _: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("dataset", n)
    return DeleteDataset(dataset_id=id_), "dataset", id_, "gateway"


def _create_model(t: Things, n: int, _: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("model", n)
    command = CreateModel(model_id=id_, name=f"model-{n}", base_model="finetrail/minilm")
    return command, "model", id_, "reaction"


def _number(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("model", n)
    command = NumberVersion(model_id=id_, version_id=t.id("version", m), job_id=t.id("job", m))
    return command, "model", id_, "reaction"


def _activate(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("model", n)
    return ActivateModel(model_id=id_, version_id=t.id("version", m)), "model", id_, "gateway"


def _evaluate(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    id_ = t.id("evaluation", n)
    command = RunEvaluation(evaluation_id=id_, version_id=t.id("version", m))
    return command, "evaluation", id_, "gateway"


def _work(t: Things, n: int, m: int) -> UUID:
    return t.id(("job", "evaluation")[m], n)


def _enqueue(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    kind: WorkKind = "evaluate" if m else "train"
    command = Enqueue(work_id=_work(t, n, m), kind=kind, method=s.METHOD, attempt=1)
    return command, "queue", t.queue, "reaction"


def _offer(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    command = OfferSlots(
        agent_id=str(t.id("agent", m)),
        name="box",
        slots=n + 1,
        methods=(s.METHOD,),
        accelerator="cpu",
        memory_bytes=8_000_000_000,
    )
    return command, "queue", t.queue, "reaction"


def _assign(t: Things, _: int, __: int) -> tuple[Command, Aggregate, UUID, str]:
    return Assign(), "queue", t.queue, "reaction"


def _withdraw(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    return Withdraw(work_id=_work(t, n, m), reason="ended"), "queue", t.queue, "reaction"


def _issue_key(t: Things, n: int, m: int) -> tuple[Command, Aggregate, UUID, str]:
    role: Role = "editor" if m else "viewer"
    command = IssueKey(key_id=f"key0000{n}", name=f"key {n}", role=role, secret_hmac=f"{n:064x}")
    return command, "access", t.access, "gateway"


def _revoke_key(t: Things, n: int, _: int) -> tuple[Command, Aggregate, UUID, str]:
    return RevokeKey(key_id=f"key0000{n}"), "access", t.access, "gateway"


_claim: Final = _job(ClaimJob, attempt=1, boot_id="boot")
_ready: Final = _version(RecordReady)
_claim_evaluation: Final = _evaluation(ClaimEvaluation, attempt=1, boot_id="boot")

MAKES: Final[tuple[Make, ...]] = (
    _register_dataset,
    _validate,
    _dataset_deleted,
    _submit,
    _job(CancelJob, "gateway"),
    _claim,
    _start,
    _epoch,
    _checkpoint,
    _complete,
    _job(FailJob, attempt=1, code="out_of_memory", message="no memory is left"),
    _job(ReleaseJob, attempt=1, reason="stopped"),
    _job(ExpireLease, "reaction", attempt=1, reason="silent"),
    _create_model,
    _number,
    _activate,
    _register_version,
    _ready,
    _version(RecordFailure, message="the upload broke off"),
    _evaluate,
    _evaluation(CancelEvaluation, "gateway"),
    _claim_evaluation,
    _result,
    _evaluation(FailEvaluation, attempt=1, code="no_rows", message="nothing is held out"),
    _evaluation(ReleaseEvaluation, attempt=1, reason="stopped"),
    _evaluation(ExpireEvaluationLease, "reaction", attempt=1, reason="silent"),
    _enqueue,
    _offer,
    _assign,
    _withdraw,
    _issue_key,
    _revoke_key,
    _agent(EnrolAgent, own=True, name="box", accelerator="cpu", memory_bytes=2**33, methods=()),
    _agent(DrainAgent),
    _agent(RevokeAgent),
)

# What a job of the first of everything goes through when nobody disturbs it.
LIFE: Final[tuple[tuple[Make, int, int], ...]] = (
    (_register_dataset, 0, 0),
    (_validate, 0, 0),
    (_create_model, 0, 0),
    (_submit, 0, 0),
    (_enqueue, 0, 0),
    (_offer, 0, 0),
    (_assign, 0, 0),
    (_claim, 0, 0),
    (_start, 0, 0),
    (_epoch, 0, 1),
    (_checkpoint, 0, 1),
    (_complete, 0, 0),
    (_number, 0, 0),
    (_register_version, 0, 0),
    (_ready, 0, 0),
    (_evaluate, 0, 0),
    (_withdraw, 0, 0),
    (_enqueue, 0, 1),
    (_assign, 0, 0),
    (_claim_evaluation, 0, 0),
    (_result, 0, 0),
    (_activate, 0, 0),
)

few: Final = st.integers(0, FEW - 1)
# What to make, of which thing, and a second choice that each reads in its own way.
asking: Final = st.tuples(st.sampled_from(MAKES), few, few)


def asked(things: Things, choice: tuple[Make, int, int]) -> Asked:
    make, n, m = choice
    command, aggregate, id_, source = make(things, n, m)
    return command, StreamId(things.workspace, aggregate, id_), source
