"""A short way through nats-py for a subscription of very many messages: whole messages as bytes, at once.

The client parses each header by character, wraps each message, and hands it to a task through a queue:
25 µs a message, more than projecting it costs. A tap is told of a message while its bytes are read.
Everything else on the connection goes through the client's own parser. This rests on three things that
are not the client's interface (`_ps`, `Parser.parse`, `Subscription._id`): constraints.txt pins the
client, and a test reads through it.
"""

from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from typing_extensions import override

# subject, reply, headers as they stand on the wire, payload; it must not raise
Tap = Callable[[bytes, bytes, bytes, bytes], None]

_END: Final = b"\r\n"


def tap(nc: Client, subscription: Subscription, told: Tap) -> None:
    """Tell ``told`` of what comes for this subscription; its own callback hears nothing any more."""
    parser = nc._ps  # noqa: SLF001 - see above
    if not isinstance(parser, _TappedParser):
        parser = _TappedParser(parser)
        nc._ps = parser  # noqa: SLF001 - see above
    parser.taps[_sid(subscription)] = told


def untap(nc: Client, subscription: Subscription) -> None:
    parser = nc._ps  # noqa: SLF001 - see above
    if isinstance(parser, _TappedParser):
        parser.taps.pop(_sid(subscription), None)


def headers_of(block: bytes) -> dict[str, str]:
    """Read ``NATS/1.0`` and the lines below it."""
    lines = block.decode("utf-8", "replace").split("\r\n")[1:-2]
    try:
        return dict([line.split(": ", 1) for line in lines])  # as nearly everybody writes them
    except ValueError:
        parts = [line.partition(":") for line in lines]
        return {name: value.strip() for name, _, value in parts}


def _sid(subscription: Subscription) -> bytes:
    return str(subscription._id).encode()  # noqa: SLF001 - see above


class _TappedParser(Parser):
    """Takes over where ``before`` stands, perhaps in the middle of a message."""

    def __init__(self, before: Parser) -> None:
        self.taps: dict[bytes, Tap] = {}
        self._rest = b""
        super().__init__(before.nc)
        self.buf, self.state = before.buf, before.state
        self.needed, self.header_needed = before.needed, before.header_needed
        self.msg_arg: dict[str, Any] = before.msg_arg

    @override
    def reset(self) -> None:
        super().reset()
        self._rest = b""

    @override
    async def parse(self, data: bytes = b"") -> None:
        if self.buf or self.state != AWAITING_CONTROL_LINE:  # of the parser before
            await super().parse(data)
            return
        self._rest += data
        while other := self._next():
            await super().parse(other)

    def _next(self) -> bytes:
        """Tell the taps what is theirs; give the first thing that is not, once all of it is there."""
        data, start = self._rest, 0
        while (line := data.find(_END, start)) >= 0:
            end = line + 2
            if data.startswith((b"HMSG ", b"MSG "), start):
                # HMSG <subject> <sid> [reply] <header size> <size>; MSG <subject> <sid> [reply] <size>
                words = data[start:line].split()
                end += int(words[-1]) + 2
                if end > len(data):
                    break
                told = self.taps.get(words[2])
                if told is not None:
                    sizes = 2 if words[0] == b"HMSG" else 1
                    payload = line + 2 + (int(words[-2]) if sizes == 2 else 0)
                    reply = words[3] if len(words) == 4 + sizes else b""
                    told(words[1], reply, data[line + 2 : payload], data[payload : end - 2])
                    start = end
                    continue
            self._rest = data[end:]
            return data[start:end]
        self._rest = data[start:]
        return b""
