"""Watching a job to its end: log lines and progress together, then what became of it."""

import sys
from threading import Event, Thread

from finetrail.cli.exits import Failed
from finetrail.client import Client, Evaluation, FinetrailError, Job, Version
from finetrail.live import LiveJob, live_job

LAST_LINES_S = 10.0  # for the log of a job that has ended to be read to its end


def follow_job(client: Client, job_id: str) -> Job:
    """Show the job's log and progress on standard error until it has ended."""
    left = Event()
    with live_job() as live:
        log = Thread(target=_show_log, args=(client, job_id, live, left), daemon=True)
        log.start()
        try:
            job = client.wait(job_id, live.update)
            log.join(LAST_LINES_S)
        finally:
            left.set()
        if log.is_alive():
            live.line("the rest of the log does not come; finetrail logs shows what there is")
    return job


def result_of(client: Client, job: Job) -> tuple[Version, Evaluation | None]:
    """The version a succeeded job became, and how it did against its base.

    Raises:
        Failed: The job, its version or its evaluation failed.
    """
    if job.status != "succeeded":
        why = f": {job.error.message} ({job.error.code})" if job.error else ""
        raise Failed(f"job {job.id} {job.status}{why}")
    version = client.wait_for_version(job.id)
    if version.status != "ready":
        raise Failed(f"version {version.number} of {version.model} is {version.status}")
    evaluation_id = client.wait_for_evaluation_of(job.id)
    sys.stderr.write(f"evaluating version {version.number} of {version.model}\n")
    evaluation = client.wait_for_evaluation(evaluation_id)
    if evaluation.status == "failed":
        why = f": {evaluation.error.message}" if evaluation.error else ""
        raise Failed(f"the evaluation of {version.model} {version.number} failed{why}")
    return version, evaluation


def _show_log(client: Client, job_id: str, live: LiveJob, left: Event) -> None:
    try:
        for line in client.follow_logs(job_id):
            live.line(line.text or line.message)
    except FinetrailError as error:
        if not left.is_set():  # else whoever watched has gone, and the client with them
            live.line(f"the log cannot be read: {error}")
