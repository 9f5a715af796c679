"""What an attempt says to the log, and because of what."""

from uuid import UUID

from domain.jobs.commands import ClaimJob
from domain.messages import Command, Envelope, Outcome
from domain.work import TrainAssignment
from gpu_agent.reports import Attempt, Reports
from tests import samples

GIVEN = UUID(int=41)


class Heard:
    def __init__(self) -> None:
        self.said: list[Envelope[Command]] = []

    async def send(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> Outcome:
        assert timeout_s > 0
        self.said.append(envelope)
        return Outcome(status="recorded", sequence=len(self.said))


async def test_every_report_names_the_event_by_which_the_work_was_given() -> None:
    heard = Heard()
    assignment = TrainAssignment(
        workspace=samples.WORKSPACE,
        job_id=samples.JOB,
        attempt=2,
        spec=samples.SPEC,
        correlation_id=UUID(int=40),
        causation_id=GIVEN,
    )
    reports = Reports(Attempt.of(assignment), str(samples.AGENT), "boot", heard)

    await reports.claim()
    await reports.send(ClaimJob(job_id=samples.JOB, attempt=2, boot_id="boot"))

    assert [one.causation_id for one in heard.said] == [GIVEN, GIVEN]
    assert {one.correlation_id for one in heard.said} == {UUID(int=40)}
