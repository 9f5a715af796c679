"""The queue: what waits and why, by which policy it is decided, and everything that happened in it."""

from collections.abc import Iterator, Mapping
from typing import Any

from finetrail.client.calls import PAGE, Calls, part
from finetrail.client.models import Event, Job
from finetrail.client.transport import API, json_object


class QueueCalls(Calls):
    def queue(self) -> list[dict[str, Any]]:
        """What is assigned, then what waits in the order in which it would start, each with the reason."""
        return self._list("/queue")

    def queue_policy(self) -> dict[str, Any]:
        return self._get("/queue/policy")

    def set_queue_policy(self, policy: Mapping[str, object]) -> dict[str, Any]:
        """Replace the whole policy; what is left out takes its default."""
        return json_object(self._transport.call("PUT", f"{API}/queue/policy", json=dict(policy)))

    def change_priority(self, job_id: str, priority: int) -> Job:
        """0 to 100; a higher one starts first."""
        asked = {"priority": priority}
        return Job.model_validate(self._post(f"/jobs/{part(job_id)}/priority", asked))

    def queue_events(self) -> Iterator[Event]:
        """All that ever happened in the queue, oldest first."""
        after = 0
        while True:
            page = self._list("/events", aggregate="queue", after=after, limit=PAGE)
            found = [Event.model_validate(each) for each in page]
            yield from found
            if len(found) < PAGE:
                return
            after = found[-1].sequence
