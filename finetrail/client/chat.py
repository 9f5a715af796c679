"""Talking to language models: answers piece by piece, over the API that OpenAI's clients speak."""

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from httpx import Response
from httpx_sse import EventSource, SSEError

from finetrail.client.calls import Calls, part, without_none
from finetrail.client.errors import FinetrailError, ServerUnreachable, error_in_stream
from finetrail.client.follow import SILENCE_S
from finetrail.client.transport import delays, json_object, passing

OPENAI: Final = "/v1"
_DONE: Final = "[DONE]"


class ChatMessage(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class ChatPiece:
    """Some more of an answer. The last pieces have no text but why it ended, and what it cost."""

    model: str  # the version that answers
    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None
    usage: dict[str, int] | None = None  # tokens: prompt_tokens, completion_tokens, total_tokens


class ChatCalls(Calls):
    def language_model(self, model: str) -> dict[str, Any]:
        """What an id means now: ``root`` is the version that would answer."""
        return json_object(self._transport.call("GET", f"{OPENAI}/models/{part(model)}"))

    def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> Generator[ChatPiece, None, None]:
        """Yield the answer as it is written; closing the iterator stops the model.

        A model that is busy or away is asked again until the first piece has come.
        """
        asked = without_none(
            {
                "model": model,
                "messages": list(messages),
                "temperature": temperature,
                "top_p": top_p,
                "max_completion_tokens": max_tokens,
                "stop": stop and list(stop),
                "seed": seed,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        begun = False
        deadline = time.monotonic() + self._transport.patience_s
        for delay in delays():
            try:
                with self._talk(asked) as response:
                    for piece in _pieces(response):
                        begun = True
                        yield piece
            except FinetrailError as error:
                if begun or not passing(error) or time.monotonic() + delay > deadline:
                    raise
                time.sleep(delay)
            else:
                return

    def _talk(self, asked: dict[str, object]) -> AbstractContextManager[Response]:
        path = f"{OPENAI}/chat/completions"
        return self._transport.stream(path, json=asked, silence_s=SILENCE_S)


def _pieces(response: Response) -> Iterator[ChatPiece]:
    try:
        for message in EventSource(response).iter_sse():
            if message.data == _DONE:
                return
            if message.data:  # a comment has none
                yield _piece(json.loads(message.data))
    except SSEError as error:  # a kind of transport error to httpx, but no reason to ask again
        raise FinetrailError(f"{response.url} sends no event stream") from error
    raise ServerUnreachable(str(response.url), "the answer broke off")


def _piece(chunk: dict[str, Any]) -> ChatPiece:
    if "error" in chunk:
        raise error_in_stream(chunk)
    choice = chunk["choices"][0] if chunk["choices"] else {"delta": {}}
    return ChatPiece(
        model=chunk["model"],
        text=choice["delta"].get("content") or "",
        finish_reason=choice.get("finish_reason"),
        usage=chunk.get("usage"),
    )
