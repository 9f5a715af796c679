"""Calls about the server itself: its requests over time."""

from datetime import datetime
from typing import Any, Final

from finetrail.client.calls import Calls

WHOLE_SPAN_S: Final = 30 * 86400  # longer than anything is kept


class MonitoringCalls(Calls):
    def requests(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        route: str | None = None,
        step_s: int | None = None,
    ) -> list[dict[str, Any]]:
        """Count, latency and status by route over time; needs the role admin.

        Args:
            since: an hour before ``until`` if left out; aware.
            until: now if left out; aware.
            route: one route's template, as ``/api/v1/jobs/{job_id}``.
            step_s: what one figure stands for; the whole span if left out.
        """
        asked: dict[str, str | int | None] = {
            "from": since.isoformat() if since else None,
            "to": until.isoformat() if until else None,
            "route": route,
            "step": step_s or WHOLE_SPAN_S,
        }
        return self._list("/admin/requests", **asked)
