"""One question, one or several answers: asked at once, told as they come, dropped when nobody listens."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from litestar.types import Receive

from domain.inference import Begun, End, GenerateReply, GenerateRequest, Piece, Refused
from domain.inference import TokenLogprob as Token
from domain.work import Failed
from gateway.openai_api.errors import ClientGone, Failure, as_failure, of_agent
from gateway.ports import Inference

T = TypeVar("T")

_STOPPING: Final = Failed(code="stopping", message="the server is stopping", retryable=True)
_INCOMPLETE: Final = Failed(code="incomplete", message="the answer broke off", retryable=True)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of which model; ``requests`` are its prompts, each ``choices`` times in a row."""

    model: str  # as the answer names it
    inference_id: UUID
    requests: Sequence[GenerateRequest]
    choices: int = 1


@dataclass(slots=True)
class Answer:
    """One answer, whole."""

    end: End
    text: str = ""
    tokens: list[Token] = field(default_factory=list)


class Answers:
    """Replies to several requests in the order in which they come, each with the index of its request."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._waiting: asyncio.Queue[tuple[int, GenerateReply | Failure]] = asyncio.Queue()

    def put(self, index: int, reply: GenerateReply | Failure) -> None:
        self._waiting.put_nowait((index, reply))

    @property
    def ended(self) -> bool:
        return self._left == 0

    async def next(self) -> tuple[int, Begun | Piece | End]:
        """Wait for the next reply, and for ever behind the last one; may be cancelled at any time.

        Raises:
            Failure: One of the answers will not come, so none of them is worth anything.
        """
        index, reply = await self._waiting.get()
        match reply:
            case Failure():
                raise reply
            case Refused():
                raise of_agent(reply.error)
            case End(reason="cancelled"):
                raise of_agent(_INCOMPLETE)
            case End():
                self._left -= 1
                return index, reply
            case Begun() | Piece():
                return index, reply


class Generator:
    """Puts questions to agents; ``drain`` ends all that are open."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._asked: set[Answers] = set()
        self._draining = False

    @property
    def open(self) -> int:
        """Questions whose answers somebody waits for now."""
        return len(self._asked)

    def drain(self) -> None:
        self._draining = True
        for answers in self._asked:
            self._stop(answers)

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncIterator[Answers]:
        """Leaving the context frees the agent from what is not answered yet."""
        answers = Answers(len(question.requests))
        if self._draining:
            self._stop(answers)
        self._asked.add(answers)
        tasks = []
        for index, request in enumerate(question.requests):
            asking = self._pump(request, question.inference_id, index, answers)
            task = asyncio.create_task(asking, name=request.request_id)
            task.add_done_callback(partial(_tell_failure, index, answers))
            tasks.append(task)
        try:
            yield answers
        finally:
            self._asked.discard(answers)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def whole(self, question: Question) -> list[Answer]:
        """Every answer to its end, in the order of the requests.

        Raises:
            Failure: One of them will not come.
        """
        texts: list[list[Piece]] = [[] for _ in question.requests]
        ends: dict[int, End] = {}
        async with self.ask(question) as answers:
            while not answers.ended:
                index, reply = await answers.next()
                if isinstance(reply, Piece):
                    texts[index].append(reply)
                elif isinstance(reply, End):
                    ends[index] = reply
        return [_joined(pieces, ends[index]) for index, pieces in enumerate(texts)]

    async def _pump(
        self, request: GenerateRequest, inference_id: UUID, index: int, answers: Answers
    ) -> None:
        async with self._inference.generate(request, inference_id) as replies:
            async for reply in replies:
                answers.put(index, reply)
                if isinstance(reply, End | Refused):
                    return
        answers.put(index, Refused(request_id=request.request_id, error=_INCOMPLETE))

    def _stop(self, answers: Answers) -> None:
        answers.put(0, Refused(request_id="", error=_STOPPING))


def _tell_failure(index: int, answers: Answers, task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, Exception):
        answers.put(index, as_failure(error, task.get_name()))


def _joined(pieces: Sequence[Piece], end: End) -> Answer:
    tokens = [token for piece in pieces for token in piece.logprobs]
    return Answer(end, "".join(piece.text for piece in pieces), tokens)


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, or drop it at once when the client closes the connection.

    Raises:
        ClientGone: It did, and the work has ended.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
