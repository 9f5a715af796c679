"""The rules of a model version."""

from domain.errors import NotFound
from domain.model_versions.commands import RecordFailure, RecordReady, RegisterVersion
from domain.model_versions.events import ModelFailed, ModelReady, VersionRegistered
from domain.model_versions.model_version import VersionExists, decider
from tests import samples
from tests.samples import MODEL, VERSION
from tests.spec import Spec

version = Spec(decider)

register = RegisterVersion(
    version_id=VERSION,
    model_id=MODEL,
    model_name="support",
    number=1,
    label="20261120-174305",
    job_id=samples.JOB,
    spec=samples.SPEC,
    environment=samples.ENVIRONMENT,
    labels=("cancel", "refund"),
    files=samples.ADAPTER,
    train_rows=300,
    trained_tokens=9000,
    steps=60,
    seconds=12.0,
    final_loss=0.05,
    validation_accuracy=0.97,
)
registered = VersionRegistered(**register.model_dump(exclude={"type"}))
record_ready = RecordReady(version_id=VERSION)
ready = ModelReady(version_id=VERSION, model_id=MODEL)
record_failure = RecordFailure(version_id=VERSION, message="weights are missing")
failed = ModelFailed(version_id=VERSION, model_id=MODEL, message="weights are missing")


def test_a_version_is_registered_once() -> None:
    version.when(register).then(registered)
    version.given(registered).when(register).then_rejected(VersionExists)


def test_its_readiness_is_settled_once() -> None:
    version.given(registered).when(record_ready).then(ready)
    version.given(registered).when(record_failure).then(failed)
    for settled in (ready, failed):
        version.given(registered, settled).when(record_ready).then_nothing()
        version.given(registered, settled).when(record_failure).then_nothing()


def test_what_was_never_registered_is_not_found() -> None:
    version.when(record_ready).then_rejected(NotFound)
    version.when(record_failure).then_rejected(NotFound)
