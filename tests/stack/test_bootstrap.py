"""The streams and consumers of a started stack, and what a second start may change."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client

from domain.subjects import AGGREGATES
from finetrail.bootstrap import (
    BootstrapError,
    admin_connection,
    bootstrap,
    bootstrap_streams,
    differences,
)
from finetrail.stack.supervisor import EmbeddedStack

pytestmark = pytest.mark.infra

SECOND = 1_000_000_000  # the API counts nanoseconds
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE


@pytest.fixture
async def nc(running: EmbeddedStack) -> AsyncIterator[Client]:
    async with admin_connection(running.settings) as client:
        yield client


async def ask(nc: Client, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    reply = await nc.request(f"$JS.API.{request}", json.dumps(body or {}).encode())
    answer: dict[str, Any] = json.loads(reply.data)
    assert "error" not in answer, answer["error"]
    return answer


async def stream(nc: Client, name: str) -> dict[str, Any]:
    config: dict[str, Any] = (await ask(nc, f"STREAM.INFO.{name}"))["config"]
    return config


async def test_events_are_kept_for_ever_and_cannot_be_removed(nc: Client) -> None:
    config = await stream(nc, "EVENTS")

    assert config["subjects"] == ["events.*.*.*"]
    assert (config["retention"], config["storage"], config["discard"]) == ("limits", "file", "new")
    assert (config["max_age"], config["max_bytes"], config["max_msgs"]) == (0, -1, -1)
    assert config["allow_direct"]
    assert config["allow_atomic"]
    assert config["deny_delete"]
    assert config["deny_purge"]
    assert config["duplicate_window"] == 10 * MINUTE
    assert config["compression"] == "s2"
    assert config["republish"] == {"src": "events.>", "dest": "live.events.>"}
    assert config.get("persist_mode", "default") == "default"


async def test_commands_and_work_are_work_queues_without_an_age(nc: Client) -> None:
    commands, work = await stream(nc, "COMMANDS"), await stream(nc, "WORK")

    assert commands["subjects"] == ["commands.*.*.*.*"]
    assert work["subjects"] == ["work.*"]
    for config in (commands, work):
        assert (config["retention"], config["storage"], config["max_age"]) == (
            "workqueue",
            "file",
            0,
        )
        assert config.get("persist_mode", "default") == "default"
    assert commands["allow_direct"]
    assert commands["duplicate_window"] == 10 * MINUTE


async def test_telemetry_may_forget_and_is_written_asynchronously(nc: Client) -> None:
    config = await stream(nc, "TELEMETRY")

    assert config["subjects"] == ["telemetry.*.*.*.*", "telemetry.*.*.*.*.*"]
    assert (config["max_age"], config["max_bytes"]) == (14 * DAY, 4 * 1024**3)
    assert (config["persist_mode"], config["discard"]) == ("async", "old")
    assert config["allow_direct"]
    assert config["republish"] == {"src": "telemetry.>", "dest": "live.telemetry.>"}


async def test_the_feed_is_kept_for_a_month_and_may_be_written_in_batches(nc: Client) -> None:
    config = await stream(nc, "FEED")

    assert config["subjects"] == ["feed.*.*.*.*"]
    assert (config["retention"], config["storage"], config["discard"]) == ("limits", "file", "old")
    assert (config["max_age"], config["duplicate_window"]) == (30 * DAY, 10 * MINUTE)
    assert config["allow_direct"]
    assert config["allow_atomic"]
    assert config.get("persist_mode", "default") == "default"


async def test_schedules_and_dead_letters_have_an_age(nc: Client) -> None:
    schedule, dead = await stream(nc, "SCHEDULE"), await stream(nc, "DEAD")

    assert schedule["subjects"] == ["schedule.>", "due.>"]
    assert schedule["allow_msg_schedules"]
    assert schedule["max_age"] == 30 * DAY
    assert dead["subjects"] == ["dead.>"]
    assert dead["max_age"] == 90 * DAY


async def test_every_reader_has_a_durable_consumer_that_never_gives_up(
    nc: Client, running: EmbeddedStack
) -> None:
    agent = running.settings.agent_id
    expected = {
        **{
            ("COMMANDS", f"{aggregate}-commands"): f"commands.*.*.{aggregate}.*"
            for aggregate in AGGREGATES
        },
        ("EVENTS", "reactions"): "events.>",
        ("WORK", f"agent-{agent}"): f"work.{agent}",
    }

    for (name, consumer), filter_subject in expected.items():
        config = (await ask(nc, f"CONSUMER.INFO.{name}.{consumer}"))["config"]
        assert config["filter_subject"] == filter_subject
        assert (config["ack_policy"], config["deliver_policy"]) == ("explicit", "all")
        assert (config["ack_wait"], config["max_deliver"]) == (30 * SECOND, -1)
        assert "deliver_subject" not in config


async def test_a_second_bootstrap_changes_nothing(nc: Client, running: EmbeddedStack) -> None:
    before = await ask(nc, "STREAM.INFO.EVENTS")

    await bootstrap(running.settings)

    assert (await ask(nc, "STREAM.INFO.EVENTS"))["config"] == before["config"]
    assert await differences(nc, [running.settings.agent_id]) == []


async def test_a_setting_that_somebody_reset_is_put_right(
    nc: Client, running: EmbeddedStack
) -> None:
    config = await stream(nc, "EVENTS")
    await ask(nc, "STREAM.UPDATE.EVENTS", {**config, "allow_direct": False, "republish": None})
    found = await differences(nc, [running.settings.agent_id])

    await bootstrap(running.settings)

    assert len(found) == 2
    assert await stream(nc, "EVENTS") == config


async def test_a_consumer_that_somebody_changed_is_put_right(
    nc: Client, running: EmbeddedStack
) -> None:
    name = "CONSUMER.CREATE.COMMANDS.job-commands.commands.*.*.job.*"
    config = (await ask(nc, "CONSUMER.INFO.COMMANDS.job-commands"))["config"]
    changed = {"stream_name": "COMMANDS", "config": {**config, "max_deliver": 3}}
    await ask(nc, name, changed)

    await bootstrap(running.settings)

    assert (await ask(nc, "CONSUMER.INFO.COMMANDS.job-commands"))["config"] == config


async def test_a_limit_for_events_can_be_set_and_taken_back(
    nc: Client, running: EmbeddedStack
) -> None:
    agents = [running.settings.agent_id]

    await bootstrap_streams(nc, agents, events_max_bytes=1024**3)
    limited = await stream(nc, "EVENTS")
    await bootstrap_streams(nc, agents)

    assert limited["max_bytes"] == 1024**3
    assert (await stream(nc, "EVENTS"))["max_bytes"] == -1


async def test_a_stream_of_another_kind_is_refused_and_left_alone(
    nc: Client, running: EmbeddedStack
) -> None:
    await ask(nc, "STREAM.DELETE.DEAD")
    foreign = {"name": "DEAD", "subjects": ["dead.>", "dying.>"], "storage": "memory"}
    await ask(nc, "STREAM.CREATE.DEAD", foreign)

    with pytest.raises(BootstrapError, match=r"DEAD\.storage is 'memory'"):
        await bootstrap(running.settings)

    assert (await stream(nc, "DEAD"))["storage"] == "memory"
    await ask(nc, "STREAM.DELETE.DEAD")
    await bootstrap(running.settings)


async def test_an_agent_that_joins_gets_its_own_consumer(nc: Client) -> None:
    await bootstrap_streams(nc, ["a2"])
    await bootstrap_streams(nc, ["a2"])

    config = (await ask(nc, "CONSUMER.INFO.WORK.agent-a2"))["config"]

    assert config["filter_subject"] == "work.a2"
    await ask(nc, "CONSUMER.DELETE.WORK.agent-a2")
