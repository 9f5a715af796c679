"""The routes under ``/v1`` that generate text."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar import Controller, Request, Router, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from litestar.response import Stream

from gateway.authentication import Keys, Principal
from gateway.openai_api.chat import ChatBody, chat_question
from gateway.openai_api.chat_answers import ChatCompletion, ChatForm
from gateway.openai_api.completions import (
    Completion,
    CompletionBody,
    CompletionForm,
    completion_question,
)
from gateway.openai_api.errors import PREFIX
from gateway.openai_api.generating import Answer, Generator, Question, unless_gone
from gateway.openai_api.models import Models, ModelsController
from gateway.openai_api.sampling import wants_usage
from gateway.openai_api.streaming import Form, LiveAnswer, Talk
from gateway.request_id import request_id


@dataclass(frozen=True, slots=True)
class Answering:
    """What a route needs to answer a question in either way."""

    models: Models
    generator: Generator
    keys: Keys
    workspace: str
    ping_s: float

    async def whole(
        self, request: Request[Principal, Any, Any], question: Question
    ) -> list[Answer]:
        """Raises ``ClientGone`` as soon as nobody waits any more."""
        return await unless_gone(request.receive, self.generator.whole(question))

    def live(
        self, request: Request[Principal, Any, Any], question: Question, form: Form
    ) -> LiveAnswer:
        allowed = self._key_holds(request.user.key_id)
        return LiveAnswer(Talk(self.generator, question, form, self.ping_s, allowed))

    def _key_holds(self, key_id: str) -> Callable[[], bool]:
        return lambda: self.keys.find(key_id) is not None


class CompletionsController(Controller):
    tags = ("openai",)

    @post("/chat/completions", status_code=200)
    async def chat(
        self,
        data: JSONBody[ChatBody],
        request: Request[Principal, Any, Any],
        answering: NamedDependency[Answering],
    ) -> ChatCompletion | Stream:
        """Go on with a conversation; with `stream` as server-sent events that end with `[DONE]`."""
        chosen = await answering.models.choose(data.model)
        id_ = request_id(request.scope).hex
        question = chat_question(data, chosen, answering.workspace, id_)
        form = ChatForm(
            id_,
            int(time.time()),
            question,
            logprobs=bool(data.logprobs),
            with_usage=wants_usage(data.stream_options),
        )
        if data.stream:
            return answering.live(request, question, form)
        return form.whole(await answering.whole(request, question))

    @post("/completions", status_code=200)
    async def complete(
        self,
        data: JSONBody[CompletionBody],
        request: Request[Principal, Any, Any],
        answering: NamedDependency[Answering],
    ) -> Completion | Stream:
        """Go on where a text ends, without a chat template; `stream` as for chats."""
        chosen = await answering.models.choose(data.model)
        id_ = request_id(request.scope).hex
        question = completion_question(data, chosen, answering.workspace, id_)
        form = CompletionForm(
            id_,
            int(time.time()),
            question,
            logprobs=data.logprobs,
            with_usage=wants_usage(data.stream_options),
        )
        if data.stream:
            return answering.live(request, question, form)
        return form.whole(await answering.whole(request, question))


def openai_router() -> Router:
    return Router(PREFIX, route_handlers=[ModelsController, CompletionsController])
