"""What people want to know, and what of it was read."""

from typing import Any

from finetrail.client.calls import Calls


class NotificationCalls(Calls):
    def notifications(
        self, limit: int | None = None, *, unread: bool = False
    ) -> list[dict[str, Any]]:
        """Newest first."""
        return self._pages("/notifications", limit, unread="true" if unread else None)

    def mark_notifications_read(self, ids: list[str]) -> dict[str, Any]:
        """For the key that asks."""
        return self._post("/notifications/read", {"ids": ids})
