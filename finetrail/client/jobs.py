"""Training jobs: asked for, watched, waited for."""

from collections.abc import Callable, Iterator, Mapping
from json import loads
from pathlib import Path
from typing import Any, Final

from finetrail.client.calls import (
    PAGE,
    PATIENCE_S,
    POLL_S,
    Calls,
    Point,
    part,
    point,
    without_none,
)
from finetrail.client.follow import follow
from finetrail.client.models import Job, LogLine, StepMetrics
from finetrail.client.transport import API, Params, json_object

LINES: Final = 1000  # the most that the server gives at once


class JobCalls(Calls):
    def submit_job(
        self,
        model: str,
        dataset_id: str,
        *,
        test_dataset_id: str | None = None,
        base_model: str | None = None,
        method: str | None = None,
        split: Mapping[str, object] | None = None,
        hyperparameters: Mapping[str, object] | None = None,
        seed: int | None = None,
        priority: int | None = None,
        pool: str | None = None,
        needs: Mapping[str, object] | None = None,
    ) -> Job:
        """Ask for a new version of ``model``; what is left out takes the server's default."""
        asked = {
            "model": model,
            "dataset_id": dataset_id,
            "test_dataset_id": test_dataset_id,
            "base_model": base_model,
            "method": method,
            "split": split,
            "hyperparameters": hyperparameters,
            "seed": seed,
            "priority": priority,
            "pool": pool,
            "needs": needs or None,
        }
        return Job.model_validate(self._post("/jobs", without_none(asked)))

    def job(self, job_id: str, *, as_of: Point | None = None) -> Job:
        """With ``as_of`` the progress is what events told, without speed and time left."""
        return Job.model_validate(self._get(f"/jobs/{part(job_id)}", as_of=point(as_of)))

    def jobs(
        self, *, status: str | None = None, model: str | None = None, limit: int | None = 100
    ) -> list[Job]:
        """Newest first."""
        found = self._pages("/jobs", limit, status=status, model=model)
        return [Job.model_validate(each) for each in found]

    def cancel(self, job_id: str) -> Job:
        return Job.model_validate(self._post(f"/jobs/{part(job_id)}/cancel"))

    def metrics(self, job_id: str, *, points: int | None = None) -> list[StepMetrics]:
        """The steps in order, thinned to ``points`` if there are more."""
        found = self._list(f"/jobs/{part(job_id)}/metrics", points=points)
        return [StepMetrics.model_validate(each) for each in found]

    def logs(
        self,
        job_id: str,
        *,
        limit: int | None = None,
        level: str | None = None,
        after: int | None = None,
    ) -> list[LogLine]:
        """What there is now, oldest first; all of it if no limit is given."""
        path = f"{API}/jobs/{part(job_id)}/logs"
        found: list[LogLine] = []
        position = None if after is None else str(after)
        while limit is None or len(found) < limit:
            size = LINES if limit is None else min(LINES, limit - len(found))
            asked: Params = {"limit": size, "level": level, "after": position}
            answer = json_object(self._transport.call("GET", path, params=asked))
            found += [LogLine.model_validate(each) for each in answer["items"]]
            position = answer.get("next")
            if position is None:
                break
        return found

    def follow_logs(
        self,
        job_id: str,
        *,
        level: str | None = None,
        after: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Iterator[LogLine]:
        """Yield every line, old ones first, then as they come, until the job has ended.

        A dropped line or a restarted server leaves no gap and repeats nothing.
        """
        for message in follow(
            self._transport,
            f"{API}/jobs/{part(job_id)}/logs",
            params={"level": level},
            after=after,
            patience_s=patience_s,
        ):
            sequence = int(message.id) if message.id.isdigit() else 0
            match message.event:
                case "log":
                    data = loads(message.data)
                    for line in data.get("lines", []):
                        yield LogLine(**line, attempt=data.get("attempt", 0), sequence=sequence)
                case "gap":
                    said = "some lines are older than what the server keeps and were left out"
                    yield LogLine(level="WARNING", message=said, source="system", text=said)
                case "end":
                    return
                case _:
                    pass  # a newer server may say more

    def log_chunks(self, job_id: str) -> list[dict[str, Any]]:
        """All files in which the lines of its log are kept, oldest first."""
        path = f"{API}/jobs/{part(job_id)}/logs/chunks"
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            asked: Params = {"limit": PAGE, "after": after}
            answer = json_object(self._transport.call("GET", path, params=asked))
            found += answer["items"]
            after = answer.get("next")
            if after is None:
                return found

    def bring_log_chunk(self, job_id: str, file: str | Path) -> dict[str, Any]:
        """Have a chunk, `log_<time>.jsonl.gz`, taken into its log; twice is no error.

        Raises:
            Invalid: It is no chunk.
            Conflict: Another one was taken in under this name.
        """
        chunk = Path(file)
        data = chunk.read_bytes()
        return json_object(
            self._transport.call(
                "POST",
                f"{API}/jobs/{part(job_id)}/logs/chunks",
                params={"name": chunk.name},
                body=lambda: iter([data]),
                headers={"Content-Type": "application/gzip", "Content-Length": str(len(data))},
            )
        )

    def wait(
        self,
        job_id: str,
        on_progress: Callable[[Job], None] | None = None,
        *,
        timeout_s: float | None = None,
        poll_s: float = POLL_S,
    ) -> Job:
        """Return the job when it has ended, however it ended; a restarting server is waited for.

        Raises:
            WaitTimeout: It goes on after ``timeout_s``.
        """

        def ended() -> Job | None:
            job = self.job(job_id)
            if on_progress:
                on_progress(job)
            return job if job.ended else None

        return self._until(ended, f"job {job_id} has not ended", timeout_s, poll_s)
