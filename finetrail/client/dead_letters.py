"""What the server could not handle, and what shall become of it."""

from typing import Any

from finetrail.client.calls import Calls


class DeadLetterCalls(Calls):
    def dead_letters(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The open ones, oldest first; needs the role admin, like all of these."""
        return self._pages("/dead-letters", limit)

    def dead_letter(self, sequence: int) -> dict[str, Any]:
        """One with its whole original, in which secrets are hidden."""
        return self._get(f"/dead-letters/{sequence:d}")

    def retry_dead_letter(self, sequence: int, reason: str = "") -> dict[str, Any]:
        """Have the original handled once more; should it fail again, it comes back as another."""
        return self._post(f"/dead-letters/{sequence:d}/retry", {"reason": reason})

    def discard_dead_letter(self, sequence: int, reason: str) -> dict[str, Any]:
        """Give the original up for good."""
        return self._post(f"/dead-letters/{sequence:d}/discard", {"reason": reason})
