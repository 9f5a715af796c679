"""Webhooks: who is told what happens, and what became of it."""

from typing import Any

from finetrail.client.calls import Calls, Point, point, without_none


class WebhookCalls(Calls):
    def webhooks(self, *, as_of: Point | None = None) -> list[dict[str, Any]]:
        """Those that are there, with how far each has come, which nobody knows of the past."""
        return self._list("/webhooks", as_of=point(as_of))

    def webhook_event_types(self) -> list[str]:
        """The types that may be chosen."""
        return [str(name) for name in self._list("/webhooks/event-types")]

    def add_webhook(
        self, url: str, event_types: list[str] | None = None, description: str = ""
    ) -> dict[str, Any]:
        """Tell this address of what happens from now on; its `secret` is shown this once."""
        asked = {"url": url, "event_types": event_types, "description": description}
        return self._post("/webhooks", asked)

    def webhook(self, webhook_id: str, *, as_of: Point | None = None) -> dict[str, Any]:
        return self._get(f"/webhooks/{webhook_id}", as_of=point(as_of))

    def change_webhook(self, webhook_id: str, **changes: Any) -> dict[str, Any]:
        """Change what is named: `url`, `event_types` (None for all), `description`."""
        return self._patch(f"/webhooks/{webhook_id}", changes)

    def disable_webhook(self, webhook_id: str, reason: str = "") -> dict[str, Any]:
        return self._post(f"/webhooks/{webhook_id}/disable", {"reason": reason})

    def enable_webhook(self, webhook_id: str) -> dict[str, Any]:
        return self._post(f"/webhooks/{webhook_id}/enable")

    def remove_webhook(self, webhook_id: str) -> None:
        self._delete(f"/webhooks/{webhook_id}")

    def rotate_webhook_secret(self, webhook_id: str) -> dict[str, Any]:
        """A new `secret`, shown this once; for 24 hours the old one signs too."""
        return self._post(f"/webhooks/{webhook_id}/rotate-secret")

    def test_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Send a test now, and say what the receiver answered."""
        return self._post(f"/webhooks/{webhook_id}/test")

    def webhook_deliveries(self, webhook_id: str, limit: int | None = None) -> list[dict[str, Any]]:
        """What was tried, newest first."""
        return self._pages(f"/webhooks/{webhook_id}/deliveries", limit)

    def replay_webhook(
        self,
        webhook_id: str,
        *,
        from_sequence: int | None = None,
        from_time: str | None = None,
    ) -> dict[str, Any]:
        """Deliver everything from there on once more, under the same ids."""
        asked = without_none({"from_sequence": from_sequence, "from_time": from_time})
        return self._post(f"/webhooks/{webhook_id}/replay", asked)
