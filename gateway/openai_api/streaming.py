"""Answers as they are written: server-sent events in OpenAI's form, for as long as somebody listens."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from litestar import Litestar, Request
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send
from typing_extensions import override

from domain.inference import Begun, End, Piece
from gateway.following import EVENT_STREAM
from gateway.openai_api.errors import ClientGone, Failure
from gateway.openai_api.generating import Answers, Generator, Question, unless_gone
from gateway.sse import STREAM_HEADERS

PING: Final = b": ping\n\n"
DONE: Final = b"data: [DONE]\n\n"

Said = tuple[int, Begun | Piece | End]


class Form(Protocol):
    """How one route tells of answers; empty where it has nothing to say."""

    with_usage: bool

    def begun(self, index: int) -> bytes: ...
    def piece(self, index: int, piece: Piece) -> bytes: ...
    def ended(self, index: int, end: End) -> bytes: ...
    def usage(self, ends: Sequence[End]) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Talk:
    """One question whose answers are told as they come."""

    generator: Generator
    question: Question
    form: Form
    ping_s: float  # of silence, after which a comment says that the line is up
    allowed: Callable[[], bool]  # whether the key still holds

    async def hold(
        self, begin: Callable[[], Awaitable[None]], say: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Begin with the agent's first word, or when it keeps us waiting.

        Raises:
            Failure: Before the beginning; later it is the last thing said.
        """
        async with self.generator.ask(self.question) as answers:
            first = await self._next(answers)
            await begin()
            try:
                await self._tell(answers, first, say)
            except Failure as failure:
                await say(_event(msgspec.json.encode(failure.body)))

    async def _tell(
        self, answers: Answers, said: Said | None, say: Callable[[bytes], Awaitable[None]]
    ) -> None:
        ends: dict[int, End] = {}
        while True:
            await say(self._written(said))
            if said is not None and isinstance(said[1], End):
                ends[said[0]] = said[1]
            if answers.ended:
                break
            if not self.allowed():
                raise Failure(401, "This key was revoked.", code="invalid_api_key")
            said = await self._next(answers)
        if self.form.with_usage:
            await say(_event(self.form.usage([ends[index] for index in sorted(ends)])))
        await say(DONE)

    async def _next(self, answers: Answers) -> Said | None:
        try:
            async with asyncio.timeout(self.ping_s):
                return await answers.next()
        except TimeoutError:
            return None

    def _written(self, said: Said | None) -> bytes:
        """An event, or a comment in its place: an agent's sign of life is one of ours."""
        data = self._data(*said) if said else b""
        return _event(data) if data else PING

    def _data(self, index: int, reply: Begun | Piece | End) -> bytes:
        match reply:
            case Begun():
                return self.form.begun(index)
            case Piece() if reply.text or reply.logprobs:
                return self.form.piece(index, reply)
            case End():
                return self.form.ended(index, reply)
            case _:
                return b""


class LiveAnswer(Stream):
    """The response to whoever wants a stream; an error before it begins is one with a status."""

    def __init__(self, talk: Talk) -> None:
        super().__init__(())
        self._talk = talk

    @override
    def to_asgi_response(
        self, app: Litestar | None, request: Request[Any, Any, Any], **options: Any
    ) -> ASGIResponse:
        return _LiveResponse(self._talk)


class _LiveResponse(ASGIStreamingResponse):
    """Holds the talk in one task, so that it has ended when this has, however the client leaves."""

    def __init__(self, talk: Talk) -> None:
        super().__init__(iterator=(), headers=dict(STREAM_HEADERS), media_type=EVENT_STREAM)
        self._talk = talk

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def say(chunk: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

        with suppress(ClientGone):
            await unless_gone(receive, self._talk.hold(partial(self.start_response, send), say))
            await say(b"", more=False)


def _event(data: bytes) -> bytes:
    """JSON text has no line breaks, so one data line holds it."""
    return b"data: " + data + b"\n\n"
