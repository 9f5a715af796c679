"""What an agent counts of its work."""

import pytest

from domain.blobs import BlobRef
from gpu_agent.figures import FIGURES
from tests.agent.conftest import RunAgent
from tests.agent.core import Core, spec_of, until

pytestmark = pytest.mark.infra


def sample(name: str, **labels: str) -> float:
    return FIGURES.get_sample_value(name, labels) or 0.0


async def test_steps_and_ends_of_attempts_are_counted(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    method = spec_of("steps-5", rows).method
    steps = sample("finetrail_training_steps_total", method=method)
    outcomes = {
        outcome: sample("finetrail_agent_attempts_total", kind="job", outcome=outcome)
        for outcome in ("finished", "failed")
    }
    finished = core.submit(spec_of("steps-5", rows))
    failed = core.submit(spec_of("fails", rows))

    async with run():
        await core.assign(finished)
        await until(core.ended(finished, "JobSucceeded"))
        await core.assign(failed)
        await until(core.ended(failed, "JobFailed"))
        await core.all_work_is_acknowledged()
        assert sample("finetrail_agent_slots") >= 1

    assert sample("finetrail_training_steps_total", method=method) == steps + 5
    assert sample("finetrail_agent_attempts_held") == 0
    for outcome, before in outcomes.items():
        now = sample("finetrail_agent_attempts_total", kind="job", outcome=outcome)
        assert now == before + 1
