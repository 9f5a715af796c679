"""The stream of dead letters, for the handlers that empty it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError, NotFoundError

from domain.errors import StoreUnavailable

STREAM: Final = "DEAD"
NO_SUCH_MESSAGE: Final = 10057  # the server's code for a message that cannot be removed


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it stands there."""

    kind: str
    headers: Mapping[str, str]
    body: bytes


class NatsLetterBox:
    def __init__(self, nc: Client) -> None:
        self._js = nc.jetstream()

    async def read(self, sequence: int) -> Letter | None:
        """The letter, or None when it was removed or has grown too old.

        Raises:
            StoreUnavailable: No answer; ask again later.
        """
        try:
            found = await self._js.get_msg(STREAM, sequence)
        except NotFoundError:
            return None
        except (NatsError, TimeoutError) as error:
            raise StoreUnavailable(f"{STREAM} cannot be read: {error}") from error
        kind = (found.subject or "").split(".")[1]
        return Letter(kind, found.headers or {}, found.data or b"")

    async def remove(self, sequence: int) -> None:
        """Remove a letter; one that is gone is fine.

        Raises:
            StoreUnavailable: No answer; ask again later.
        """
        try:
            await self._js.delete_msg(STREAM, sequence)
        except APIError as error:
            if error.err_code != NO_SUCH_MESSAGE and await self.read(sequence) is not None:
                raise StoreUnavailable(f"{STREAM} keeps {sequence}: {error}") from error
        except (NatsError, TimeoutError) as error:
            raise StoreUnavailable(f"{STREAM} does not answer: {error}") from error
