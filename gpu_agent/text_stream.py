"""One request for text on the agent's side: what goes out, signs of life, and when it is given up."""

import asyncio
from typing import Literal

from domain.inference import (
    KEEP_S,
    SILENCE_S,
    Begun,
    Control,
    End,
    GenerateRequest,
    Piece,
    Refused,
)
from domain.work import Failed
from gpu_agent.ports import Send

Reply = Begun | Piece | End | Refused


class TextStream:
    """`run` passes on what is said with `deliver`, up to an end of either side's making."""

    def __init__(self, request: GenerateRequest, agent_id: str) -> None:
        self.request = request
        self.order: bytes | None = None  # for the child, once its files are there
        self.taken = asyncio.Event()  # the child has said something about it
        self.child_is_done = False
        self._agent_id = agent_id
        self._clock = asyncio.get_running_loop().time
        self._since = self._heard = self._sent = self._clock()
        self._first_token_s: float | None = None
        self._begun: Begun | None = None
        self._tokens = 0
        self._number = 0
        self._replies: asyncio.Queue[Reply] = asyncio.Queue()

    def deliver(self, reply: Reply) -> None:
        self.taken.set()
        self.child_is_done = isinstance(reply, End | Refused)
        self._replies.put_nowait(reply)

    def hear(self, word: Control) -> None:
        """What whoever asked says while the answer is on its way."""
        self._heard = self._clock()
        if word == "cancel":
            self._replies.put_nowait(self._ended("cancelled"))

    async def run(self, send: Send) -> None:
        """Send every reply, the last one included.

        Raises:
            ConnectionError: from ``send``: nobody can be reached any more.
        """
        reply: Reply | None = None
        while not isinstance(reply, End | Refused):
            deadline = self._since + self.request.deadline_s
            wake_at = min(deadline, self._heard + SILENCE_S, self._sent + KEEP_S)
            try:
                async with asyncio.timeout_at(wake_at):
                    reply = self._counted(await self._replies.get())
            except TimeoutError:
                reply = self._due()
            if reply is not None:
                self._sent = self._clock()
                await send(reply)

    def _due(self) -> Reply | None:
        now = self._clock()
        if now >= self._since + self.request.deadline_s:
            return self._ended("deadline")
        if now >= self._heard + SILENCE_S:
            return self._ended("cancelled")
        if now >= self._sent + KEEP_S:
            return self._numbered(
                Piece(request_id=self.request.request_id, number=0, text="", tokens=0)
            )
        return None

    def _counted(self, reply: Reply) -> Reply:
        """Fill in what the child does not know: this agent, and the time that passed before it."""
        now = self._clock() - self._since
        match reply:
            case Begun():
                self._begun = reply
                return reply.model_copy(update={"agent_id": self._agent_id})
            case Piece():
                self._tokens += reply.tokens
                if self._first_token_s is None:
                    self._first_token_s = now
                return self._numbered(reply)
            case End():
                times = {"seconds": now, "first_token_s": self._first_token_s}
                return reply.model_copy(update=times)
            case Refused():
                return reply

    def _numbered(self, piece: Piece) -> Piece:
        number, self._number = self._number, self._number + 1
        return piece.model_copy(update={"number": number})

    def _ended(self, reason: Literal["cancelled", "deadline"]) -> Reply:
        if self._begun is None and reason == "deadline":
            message = f"nothing was begun within {self.request.deadline_s:g} s"
            error = Failed(code="deadline", message=message, retryable=True)
            return Refused(request_id=self.request.request_id, error=error)
        return End(
            request_id=self.request.request_id,
            reason=reason,
            prompt_tokens=self._begun.prompt_tokens if self._begun else 0,
            completion_tokens=self._tokens,
            seconds=self._clock() - self._since,
            first_token_s=self._first_token_s,
        )
