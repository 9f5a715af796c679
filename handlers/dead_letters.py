"""What could not be handled, put aside with its reason and everything needed to send it again."""

from collections.abc import Mapping
from typing import Final

from handlers.ports import Publish

PREFIX: Final = "dead"
MAX_REASON: Final = 1000  # characters; a header, not a report


class DeadLetters:
    """Writes to ``dead.<kind>.<aggregate>``; the same message put aside twice collides with itself."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    async def put(
        self,
        kind: str,
        subject: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        key: str,
        reason: str,
    ) -> None:
        """Keep the original whole: its subject and the reason stand beside its own headers.

        Args:
            key: names this message among all of its kind.
        """
        # The server's own headers would be obeyed again.
        kept = {name: value for name, value in headers.items() if not name.startswith("Nats-")}
        aside = {
            "dead-subject": subject,
            "dead-reason": _one_line(reason),
            "Nats-Msg-Id": f"{PREFIX}.{kind}.{key}",
        }
        await self._publish(f"{PREFIX}.{kind}.{_aggregate(subject)}", body, kept | aside)


def _aggregate(subject: str) -> str:
    tokens = subject.split(".")
    return tokens[-2] if len(tokens) > 2 else "unknown"


def _one_line(text: str) -> str:
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()[:MAX_REASON]
