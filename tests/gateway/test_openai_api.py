"""The unmodified client of OpenAI against the gateway behind a real socket."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from domain.inference import Begun, GenerateReply, GenerateRequest, Piece, Turn
from domain.model_versions.commands import RecordFailure
from domain.subjects import derived_id
from tests.gateway.real_server import listening
from tests.gateway.world import AGENT, Script, W, World, answer, refusal, running_world

pytestmark = pytest.mark.timeout(60)

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is it?"}]
JSON: dict[str, Any] = {"headers": {"content-type": "application/json"}}
ASKED: dict[str, Any] = {"model": "support", "messages": HELLO}


@pytest_asyncio.fixture
async def talking(world: World) -> World:
    await world.talking()
    return world


@pytest_asyncio.fixture
async def url(talking: World) -> AsyncIterator[str]:
    async with listening(talking) as where:
        yield where


def client_of(world: World, url: str, role: str = "viewer") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key=world.keys[role].text, max_retries=0, timeout=10
    )


@pytest_asyncio.fixture
async def client(talking: World, url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(talking, url) as made:
        yield made


@pytest_asyncio.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """For tests that leave it as it was, or say themselves what agents answer."""
    async with running_world(tmp_path_factory.mktemp("blobs")) as made:
        await made.talking()
        yield made


@pytest_asyncio.fixture(scope="module")
async def shared_client(shared: World) -> AsyncIterator[openai.AsyncOpenAI]:
    async with listening(shared) as url, client_of(shared, url) as made:
        yield made


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def endless(said: list[int]) -> Script:
    """Pieces for as long as somebody takes them; notes the number of each."""

    async def replies(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        yield Begun(request_id=request.request_id, agent_id=str(AGENT), prompt_tokens=7)
        number = 0
        while True:
            said.append(number)
            yield piece(request, number, f"{number} ")
            number += 1
            await asyncio.sleep(0.002)

    return replies


def piece(request: GenerateRequest, number: int, text: str) -> Piece:
    return Piece(request_id=request.request_id, number=number, text=text, tokens=bool(text))


async def silent(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
    """An agent that has taken the request and says nothing."""
    await asyncio.sleep(3600)
    yield piece(request, 0, "never")


# Models


async def test_models_in_service_and_their_base_models_are_listed(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    await talking.trained("labels")
    await talking.talking("idle", active=False)
    await talking.talking("poems")

    found = [model async for model in client.models.list()]

    assert [(model.id, model.owned_by, model.object) for model in found] == [
        ("poems", W, "model"),
        ("support", W, "model"),
        ("finetrail/tiny", W, "model"),
    ]
    assert [model.model_dump()["parent"] for model in found] == ["finetrail/tiny"] * 2 + [None]
    assert [model.model_dump()["root"] for model in found] == [
        "poems:1",
        "support:1",
        "finetrail/tiny",
    ]
    assert all(model.created > 1_700_000_000 for model in found)


async def test_a_model_is_found_by_its_name_its_version_and_as_a_base_model(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    await talking.talking(active=False)

    found = [
        await client.models.retrieve(id_)
        for id_ in ("support", "support:1", "support:2", "finetrail/tiny")
    ]

    roots = [model.model_dump()["root"] for model in found]
    assert [model.id for model in found] == ["support", "support:1", "support:2", "finetrail/tiny"]
    assert roots == ["support:1", "support:1", "support:2", "finetrail/tiny"]


@pytest.mark.parametrize(
    ("id_", "why"),
    [
        ("nobody", "does not exist"),
        ("support:9", "no version 9"),
        ("support:0", "does not exist"),
        ("Qwen/Qwen3-0.6B", "does not exist"),
        ("support\x00", "does not exist"),
        ("labels", "/api/v1/models/labels/predict"),
        ("labels:1", "/api/v1/models/labels/predict"),
        ("idle", "name one as 'idle:1'"),
        ("broken:1", "is error, not ready"),
    ],
)
async def test_what_cannot_talk_is_not_found_and_why(
    talking: World, client: openai.AsyncOpenAI, id_: str, why: str
) -> None:
    job = await talking.trained("labels")
    await talking.activate("labels", derived_id(W, "version", job["id"]))
    await talking.talking("idle", active=False)
    broken = await talking.talking("broken", active=False, ready=False)
    await talking.decide(RecordFailure(version_id=broken, message="lost"), broken)

    with pytest.raises(openai.NotFoundError) as retrieved:
        await client.models.retrieve(id_)
    with pytest.raises(openai.NotFoundError) as asked:
        await client.chat.completions.create(model=id_, messages=HELLO)

    for error in (retrieved.value, asked.value):
        assert (error.code, error.param, error.type) == (
            "model_not_found",
            "model",
            "invalid_request_error",
        )
        assert why in error.message


async def test_the_version_in_service_answers_and_the_answer_names_it(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    first = await client.chat.completions.create(model="support", messages=HELLO)
    second_id = await talking.talking()
    second = await client.chat.completions.create(model="support", messages=HELLO)
    old = await client.chat.completions.create(model="support:1", messages=HELLO)

    asked = [request.served.version_id for request, _ in talking.inference.questions]
    model_id = derived_id(W, "model", "support")
    assert [one.model for one in (first, second, old)] == ["support:1", "support:2", "support:1"]
    assert asked[1] == second_id
    assert asked[0] == asked[2] != second_id
    assert {to for _, to in talking.inference.questions} == {model_id}
    assert {file.path for file in talking.inference.questions[0][0].served.adapter} == {
        "adapter_config.json",
        "labels.json",
    }


async def test_a_base_model_is_asked_without_an_adapter_at_an_address_of_its_own(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    said = await client.chat.completions.create(model="finetrail/tiny", messages=HELLO)

    (request, to) = talking.inference.questions[0]
    assert said.model == "finetrail/tiny"
    assert (request.served.method, request.served.base_model) == ("sft", "finetrail/tiny")
    assert (request.served.version_id, request.served.adapter) == (None, ())
    assert to == derived_id(W, "base_model", "finetrail/tiny")


async def test_agents_are_told_everything_that_is_in_service(talking: World) -> None:
    job = await talking.trained("labels")
    await talking.activate("labels", derived_id(W, "version", job["id"]))

    told = await talking.gateway.catalog.in_service()
    talking.queries.away = True
    untold = await talking.gateway.catalog.in_service()

    assert told is not None
    assert [(one.method, one.base_model, one.labels) for one in told.models] == [
        ("sequence_classification", "finetrail/minilm", ("delivery", "refund")),
        ("sft", "finetrail/tiny", ()),
    ]
    assert all(one.adapter for one in told.models)
    assert untold is None


async def test_agents_are_told_no_more_than_a_message_holds(
    talking: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.inference.MOST_TOLD", 1)
    await talking.talking("newest")

    said = await talking.gateway.catalog.in_service()

    newest, _ = await talking.gateway.catalog.active()
    assert said is not None
    assert [served.version_id for served in said.models] == [newest.id]


# Chat


async def test_a_chat_is_answered_whole(talking: World, client: openai.AsyncOpenAI) -> None:
    said = await client.chat.completions.create(**ASKED)

    assert said.object == "chat.completion"
    assert said.id.startswith("chatcmpl-")
    assert said.created > 1_700_000_000
    assert said.choices[0].message.content == "It is on its way."
    assert said.choices[0].message.role == "assistant"
    assert said.choices[0].finish_reason == "stop"
    assert said.choices[0].logprobs is None
    assert said.usage is not None
    assert said.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
    }
    assert said._request_id


async def test_a_chat_is_streamed_role_first_then_text_then_why_it_ended(
    client: openai.AsyncOpenAI,
) -> None:
    stream = await client.chat.completions.create(**ASKED, stream=True)
    chunks = [chunk async for chunk in stream]

    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "It is "},
        {"content": "on its way."},
        {},
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", "support:1")
    }
    assert "usage" not in chunks[0].model_fields_set


async def test_a_stream_tells_its_usage_last_where_that_is_wanted(
    client: openai.AsyncOpenAI,
) -> None:
    options: Any = {"include_usage": True}
    stream = await client.chat.completions.create(**ASKED, stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]

    last = chunks.pop()
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 2)
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)


async def test_a_stream_on_the_wire_is_events_and_ends_with_done(talking: World, url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers=talking.header("viewer")) as http:
        said = await http.post("/v1/chat/completions", json=ASKED | {"stream": True})

    events = said.text.split("\n\n")
    assert said.headers["content-type"].startswith("text/event-stream")
    assert said.headers["x-accel-buffering"] == "no"
    assert said.headers["x-request-id"]
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


async def test_the_helper_for_streams_puts_an_answer_together(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**ASKED) as stream:
        whole = await stream.get_final_completion()

    assert whole.choices[0].message.content == "It is on its way."


async def test_the_synchronous_client_chats_too(talking: World, url: str) -> None:
    def chat() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key=talking.keys["viewer"].text) as client:
            whole = client.chat.completions.create(**ASKED)
            stream = client.chat.completions.create(**ASKED, stream=True)
            texts = [chunk.choices[0].delta.content or "" for chunk in stream]
        return whole.choices[0].message.content, "".join(texts)

    assert await asyncio.to_thread(chat) == ("It is on its way.",) * 2


async def test_messages_reach_the_model_in_their_roles_and_as_plain_text(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    before = await client.chat.completions.create(**ASKED)
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Hello"},
        before.choices[0].message.model_dump(),
        {"role": "user", "content": ""},
    ]  # fmt: skip
    await client.chat.completions.create(model="support", messages=messages)

    assert talking.inference.questions[1][0].messages == (
        Turn(role="system", content="Be brief."),
        Turn(role="system", content="Be kind."),
        Turn(role="user", content="Hello"),
        Turn(role="assistant", content="It is on its way."),
        Turn(role="user", content=""),
    )


async def test_nothing_said_means_the_defaults(talking: World, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(**ASKED)

    (request, _) = talking.inference.questions[0]
    assert request.sampling.model_dump() == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": None,
        "stop": (),
        "seed": None,
        "max_tokens": None,
        "top_logprobs": None,
    }
    assert request.prompt is None


async def test_parameters_reach_the_model(talking: World, client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(
        **ASKED,
        temperature=0,
        top_p=0.5,
        seed=5,
        stop=["\n", "###"],
        max_completion_tokens=12,
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 40},
    )

    assert talking.inference.questions[0][0].sampling.model_dump() == {
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 40,
        "stop": ("\n", "###"),
        "seed": 5,
        "max_tokens": 12,
        "top_logprobs": 2,
    }


@pytest.mark.parametrize(
    ("sent", "field", "taken"),
    [
        ({"stop": "\n"}, "stop", ("\n",)),
        ({"stop": []}, "stop", ()),
        ({"max_tokens": 3}, "max_tokens", 3),
        ({"top_k": -1}, "top_k", None),
        ({"top_k": 0}, "top_k", None),
        ({"top_p": 0}, "top_p", 1e-6),
        ({"logprobs": True}, "top_logprobs", 0),
        ({"seed": -1}, "seed", -1),
    ],
)
async def test_a_parameter_may_come_in_another_form(
    shared: World,
    shared_client: openai.AsyncOpenAI,
    sent: dict[str, Any],
    field: str,
    taken: object,
) -> None:
    shared.inference.script = None
    await shared_client.chat.completions.create(**ASKED, extra_body=sent)

    assert getattr(shared.inference.questions[-1][0].sampling, field) == taken


async def test_log_probabilities_come_in_the_form_of_chats(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=2)
    stream = await client.chat.completions.create(
        **ASKED, logprobs=True, top_logprobs=2, stream=True
    )
    streamed = [
        token
        async for chunk in stream
        if (logprobs := chunk.choices[0].logprobs) and logprobs.content
        for token in logprobs.content
    ]

    found = whole.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert [token.token for token in found.content] == ["It is ", "on its way."]
    assert found.content[0].logprob == -0.25
    assert found.content[0].bytes == list(b"It is ")
    assert [top.token for top in found.content[0].top_logprobs] == ["It is ", "no"]
    assert streamed == found.content


async def test_several_answers_are_asked_for_at_once_each_with_its_seed(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    together = asyncio.Barrier(3)

    async def replies(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        await together.wait()
        async for reply in answer(f"seed {request.sampling.seed}")(request):
            yield reply

    talking.inference.script = replies
    whole = await client.chat.completions.create(**ASKED, n=3, seed=10)
    stream = await client.chat.completions.create(
        **ASKED, n=3, seed=10, stream=True, stream_options={"include_usage": True}
    )
    texts = ["", "", ""]
    usage = None
    async for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""

    expected = ["seed 10", "seed 11", "seed 12"]
    assert [choice.message.content for choice in whole.choices] == expected
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert texts == expected
    assert whole.usage == usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)
    ids = {request.request_id for request, _ in talking.inference.questions}
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("reason", "told"), [("stop", "stop"), ("length", "length"), ("deadline", "length")]
)
async def test_why_an_answer_ended_is_told(
    talking: World, client: openai.AsyncOpenAI, reason: str, told: str
) -> None:
    talking.inference.script = answer("cut", reason=reason)

    said = await client.chat.completions.create(**ASKED)

    assert said.choices[0].finish_reason == told


# Completions


async def test_a_text_is_gone_on_with(talking: World, client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model="support", prompt="Once upon", logprobs=1)
    stream = await client.completions.create(
        model="support", prompt="Once upon", logprobs=1, stream=True
    )
    chunks = [chunk async for chunk in stream]

    (request, _) = talking.inference.questions[0]
    assert (request.prompt, request.messages) == ("Once upon", ())
    assert request.sampling.max_tokens == 16
    assert (whole.object, whole.choices[0].text) == ("text_completion", "It is on its way.")
    assert whole.id.startswith("cmpl-")
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 9
    found = whole.choices[0].logprobs
    assert found is not None
    assert found.tokens == ["It is ", "on its way."]
    assert found.token_logprobs == [-0.25, -0.25]
    assert found.top_logprobs == [{"It is ": -0.25}, {"on its way.": -0.25}]
    assert found.text_offset == [0, 6]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "It is on its way."
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]
    offsets = [chunk.choices[0].logprobs for chunk in chunks[:2]]
    assert [one and one.text_offset for one in offsets] == [[0], [6]]


async def test_several_prompts_are_answered_in_order_and_their_tokens_added_up(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    async def replies(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        async for reply in answer(f"{request.prompt}{request.sampling.seed}")(request):
            yield reply

    talking.inference.script = replies
    said = await client.completions.create(model="support", prompt=["a", "b"], n=2, seed=1)

    assert [choice.text for choice in said.choices] == ["a1", "a2", "b1", "b2"]
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (14, 4)


# What is refused


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -0.5}, "presence_penalty"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", ""]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"best_of": 2}, "best_of"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "Eve"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages[1].tool_calls",
        ),
    ],
)  # fmt: skip
async def test_what_is_not_supported_is_refused_by_name(
    shared: World, shared_client: openai.AsyncOpenAI, changed: dict[str, Any], param: str
) -> None:
    before = len(shared.inference.questions)
    with pytest.raises(openai.BadRequestError) as refused:
        await shared_client.chat.completions.create(**ASKED, extra_body=changed)

    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert param.partition("[")[0] in refused.value.message
    assert len(shared.inference.questions) == before


async def test_what_asks_for_nothing_special_is_taken(client: openai.AsyncOpenAI) -> None:
    harmless = {
        "tools": [],
        "tool_choice": "auto",
        "functions": None,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "logit_bias": {},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "user": "somebody",
        "metadata": {"run": "7"},
        "store": False,
        "safety_identifier": "x",
        "prompt_cache_key": "x",
        "stream": False,
        "stream_options": None,
        "n": None,
        "stop": None,
        "logprobs": False,
    }

    said: ChatCompletion = await client.chat.completions.create(**ASKED, extra_body=harmless)

    assert said.choices[0].message.content


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2], [3]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": ["a"] * 3, "n": 3}, "prompt"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "."}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"messages": HELLO}, "messages"),
    ],
)
async def test_completions_refuse_by_name_too(
    shared_client: openai.AsyncOpenAI, changed: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await shared_client.completions.create(model="support", prompt="x", extra_body=changed)

    assert refused.value.param == param


# Errors


async def test_a_key_that_is_none_is_an_authentication_error(world: World, url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-no", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.models.list()

    assert refused.value.code == "invalid_api_key"
    assert refused.value.response.headers["www-authenticate"].startswith("Bearer")


async def test_a_route_that_the_key_may_not_use_is_a_permission_error(
    talking: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: Any = {("POST", "/v1/chat/completions"): "admin"}
    monkeypatch.setattr("gateway.access_matrix.ACCESS", closed)
    monkeypatch.setattr("gateway.authentication.ACCESS", closed)
    async with client_of(talking, url) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(**ASKED)

    assert refused.value.code == "insufficient_permissions"


async def test_a_busy_model_is_a_rate_limit_that_says_when_to_come_back(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    talking.inference.script = refusal("busy", "all places are taken")

    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(**ASKED, stream=stream)

        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.response.headers["retry-after-ms"] == "1000"


async def test_the_client_comes_back_by_itself_when_the_model_was_busy(
    talking: World, client: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.openai_api.errors.BUSY_S", 0.001)
    scripts = iter([refusal("busy"), answer("at last")])

    async def replies(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        async for reply in next(scripts)(request):
            yield reply

    talking.inference.script = replies
    said = await client.with_options(max_retries=1).chat.completions.create(**ASKED)

    assert said.choices[0].message.content == "at last"


@pytest.mark.parametrize(
    ("code", "retryable", "error", "told"),
    [
        ("context_too_long", False, openai.BadRequestError, "context_length_exceeded"),
        ("too_long", False, openai.BadRequestError, "context_length_exceeded"),
        ("bad_request", False, openai.BadRequestError, None),
        ("no_agent", True, openai.InternalServerError, "no_agent"),
        ("silent", True, openai.InternalServerError, "silent"),
        ("deadline", True, openai.InternalServerError, "deadline"),
        ("adapter_unreadable", False, openai.InternalServerError, "adapter_unreadable"),
        ("generation_failed", False, openai.InternalServerError, "generation_failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_agent_refuses_is_told_by_its_status(
    shared: World,
    shared_client: openai.AsyncOpenAI,
    code: str,
    retryable: bool,
    error: type[openai.APIStatusError],
    told: str | None,
    stream: bool,
) -> None:
    shared.inference.script = refusal(code, "it is so", retryable=retryable)

    with pytest.raises(error) as refused:
        await shared_client.chat.completions.create(**ASKED, stream=stream)

    status, headers = refused.value.status_code, refused.value.response.headers
    assert refused.value.code == told
    assert "It is so." in refused.value.message
    assert ("retry-after" in headers) == (status == 503)
    assert (status == 503) == retryable
    assert (headers.get("x-should-retry") == "false") == (status == 500)


async def test_a_failure_in_mid_stream_is_the_last_thing_said(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    async def breaks(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        yield Begun(request_id=request.request_id, prompt_tokens=7)
        yield piece(request, 0, "It is")
        async for reply in refusal("lost", "a part of the answer was lost")(request):
            yield reply

    talking.inference.script = breaks
    stream = await client.chat.completions.create(**ASKED, stream=True)
    texts = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
    with pytest.raises(openai.APIError) as broken:
        await anext(stream)

    assert texts == ["", "It is"]
    assert "a part of the answer was lost" in broken.value.message.lower()
    assert broken.value.code == "lost"


async def test_an_answer_that_just_stops_is_an_error(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    async def stops(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        yield Begun(request_id=request.request_id, prompt_tokens=7)

    talking.inference.script = stops

    with pytest.raises(openai.InternalServerError) as broken:
        await client.chat.completions.create(**ASKED)

    assert broken.value.code == "incomplete"


async def test_our_own_mistake_is_a_server_error_that_tells_nothing(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    async def mistaken(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        yield Begun(request_id=request.request_id, prompt_tokens=7)
        raise KeyError("secret")

    talking.inference.script = mistaken
    with pytest.raises(openai.InternalServerError) as whole:
        await client.chat.completions.create(**ASKED)
    stream = await client.chat.completions.create(**ASKED, stream=True)
    with pytest.raises(openai.APIError) as streamed:
        [chunk async for chunk in stream]

    for error in (whole.value, streamed.value):
        assert "secret" not in str(error.body)
        assert error.type == "server_error"


async def test_a_read_model_that_is_away_is_told(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    talking.queries.away = True

    with pytest.raises(openai.InternalServerError) as refused:
        await client.models.list()

    assert refused.value.status_code == 503
    assert refused.value.code == "read_model_unavailable"


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("GET", "/v1", {}, 404, "unknown_url"),
        ("GET", "/v1/embeddings", {}, 404, "unknown_url"),
        ("PUT", "/v1/chat/completions", {"json": {}}, 405, "method_not_supported"),
        ("POST", "/v1/completions", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, None),
        ("POST", "/v1/completions", {"json": []}, 400, None),
        ("POST", "/v1/completions", {"content": b'{"model": "\xff"}', **JSON}, 400, None),
        ("POST", "/v1/completions", {"content": b"[" * 100_000, **JSON}, 400, None),
        ("POST", "/v1/completions", {"data": {"model": "x"}}, 415, "unsupported_media_type"),
        ("POST", "/v1/completions", {"content": b" " * 17_000_000}, 413, "too_large"),
        ("GET", "/v1/models", {"headers": {"host": "evil.example"}}, 400, "invalid_host"),
    ],
)  # fmt: skip
async def test_every_error_has_openais_form(
    shared: World,
    method: str,
    path: str,
    sent: dict[str, Any],
    status: int,
    code: str | None,
) -> None:
    async with shared.client("viewer") as http:
        said = await http.request(method, path, **sent)

    assert said.status_code == status
    assert said.headers["content-type"].startswith("application/json")
    assert said.headers["x-request-id"]
    error = said.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert error["message"]


async def test_the_native_api_keeps_its_own_form(talking: World) -> None:
    async with talking.client("viewer") as http:
        said = await http.get("/v1x")

    assert said.headers["content-type"] == "application/problem+json"


# Clients that go away


@asynccontextmanager
async def nothing_left(world: World) -> AsyncIterator[None]:
    """What is asked within is over at the end: no task, and nobody listens to an agent."""
    before = asyncio.all_tasks()
    yield
    await until(lambda: world.inference.open == 0)
    await until(lambda: asyncio.all_tasks() <= before)
    assert world.gateway.generator.open == 0


async def test_a_client_that_leaves_in_mid_stream_frees_its_place_within_a_piece(
    talking: World, url: str
) -> None:
    said: list[int] = []
    talking.inference.script = endless(said)
    async with nothing_left(talking):
        async with client_of(talking, url) as client:
            stream = await client.chat.completions.create(**ASKED, stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content == "3 ":
                    break
            await stream.close()
            await until(lambda: talking.inference.open == 0)
            heard = len(said)
        await asyncio.sleep(0.05)

    assert len(said) == heard
    assert talking.inference.left_early == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_word_frees_its_place(
    talking: World, url: str, stream: bool
) -> None:
    talking.inference.script = silent
    async with nothing_left(talking), client_of(talking, url) as client:
        asking: Awaitable[Any] = client.chat.completions.create(**ASKED, n=3, stream=stream)
        task = asyncio.ensure_future(asking)
        await until(lambda: talking.inference.open == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert talking.inference.left_early == 3


async def test_a_client_that_leaves_while_nothing_is_said_frees_its_place(
    talking: World, url: str
) -> None:
    async def stuck(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        yield Begun(request_id=request.request_id, prompt_tokens=7)
        async for reply in silent(request):
            yield reply

    talking.inference.script = stuck
    async with nothing_left(talking), client_of(talking, url) as client:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        await anext(aiter(stream))
        await stream.close()

    assert talking.inference.left_early == 1


async def test_fifty_clients_that_leave_at_random_leave_nothing_behind(
    talking: World, url: str
) -> None:
    talking.inference.script = endless([])
    choose = random.Random(5)

    async def come_and_go(client: openai.AsyncOpenAI, patience_s: float, whole: bool) -> None:
        try:
            async with asyncio.timeout(patience_s):
                asked = ASKED | {"n": choose.randint(1, 3)}
                if whole:
                    await client.chat.completions.create(**asked)
                else:
                    stream = await client.chat.completions.create(**asked, stream=True)
                    async with stream:
                        [chunk async for chunk in stream]
        except TimeoutError:
            pass

    async with nothing_left(talking), client_of(talking, url) as client:
        visits = [(choose.uniform(0, 0.3), choose.random() < 0.3) for _ in range(50)]
        await asyncio.gather(*(come_and_go(client, *visit) for visit in visits))

    assert talking.inference.open == 0
    assert talking.inference.left_early == len(talking.inference.questions)


async def test_a_silent_agent_is_bridged_by_comments(talking: World, url: str) -> None:
    go_on = asyncio.Event()

    async def slow(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        await go_on.wait()
        async for reply in answer()(request):
            yield reply

    talking.inference.script = slow
    async with (
        httpx.AsyncClient(base_url=url, headers=talking.header("viewer")) as http,
        http.stream("POST", "/v1/chat/completions", json=ASKED | {"stream": True}) as said,
    ):
        lines = said.aiter_lines()
        first = [await anext(lines) for _ in range(4)]
        go_on.set()
        rest = [line async for line in lines if line.startswith("data: ")]

    assert first == [": ping", "", ": ping", ""]
    assert rest[-1] == "data: [DONE]"


async def test_a_sign_of_life_of_the_agent_is_a_comment_and_no_chunk(
    talking: World, client: openai.AsyncOpenAI
) -> None:
    async def waits(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        yield piece(request, 0, "")
        yield Begun(request_id=request.request_id, prompt_tokens=7)
        yield piece(request, 1, "")
        async for reply in answer("now")(request):
            if not isinstance(reply, Begun):
                yield reply

    talking.inference.script = waits
    stream = await client.chat.completions.create(**ASKED, stream=True)

    assert [chunk.choices[0].delta.content async for chunk in stream] == ["", "now", None]


async def test_a_stop_of_the_server_ends_answers_in_words(talking: World) -> None:
    talking.inference.script = endless([])
    async with listening(talking) as url, client_of(talking, url) as client:
        stream = await client.chat.completions.create(**ASKED, stream=True)
        await anext(aiter(stream))
        talking.gateway.drain()
        with pytest.raises(openai.APIError) as ended:
            [chunk async for chunk in stream]
        with pytest.raises(openai.InternalServerError) as late:
            await client.chat.completions.create(**ASKED)

    assert (ended.value.code, late.value.code) == ("stopping", "stopping")
    assert late.value.status_code == 503


async def test_a_stream_ends_when_its_key_is_revoked(talking: World, url: str) -> None:
    talking.inference.script = endless([])
    async with talking.client("admin") as admin:
        key = (await admin.post("/api/v1/keys", json={"name": "n", "role": "viewer"})).json()
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key["secret"]) as client:
            stream = await client.chat.completions.create(**ASKED, stream=True)
            await anext(aiter(stream))
            await admin.delete(f"/api/v1/keys/{key['key_id']}")
            with pytest.raises(openai.APIError) as ended:
                [chunk async for chunk in stream]

    assert ended.value.code == "invalid_api_key"
    assert talking.inference.open == 0
