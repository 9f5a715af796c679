"""What each role may do on the real server, and what it may not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy

from finetrail.settings import NatsRole
from finetrail.stack.supervisor import EmbeddedStack

pytestmark = pytest.mark.infra

API = "$JS.finetrail.API"  # a subscriber's
W = "default"
ID = "018f0000-0000-7000-8000-000000000001"


class Connected:
    """A client of one role, and what the server has refused it."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.nc = Client()

    async def note(self, error: Exception) -> None:
        self.refused.append(str(error))

    async def settle(self) -> None:
        """Wait until the server has answered all so far; a violation arrives before the pong."""
        await self.nc.flush()  # the client writes this ping ahead of what it has buffered
        await self.nc.flush()

    async def may_publish(self, subject: str) -> bool:
        self.refused.clear()
        await self.nc.publish(subject, b"{}")
        await self.settle()
        return not self.refused

    async def may_subscribe(self, subject: str) -> bool:
        self.refused.clear()
        subscription = await self.nc.subscribe(subject)
        await self.settle()
        allowed = not self.refused
        if allowed:
            await subscription.unsubscribe()
        return allowed


@asynccontextmanager
async def connected(stack: EmbeddedStack, role: NatsRole) -> AsyncIterator[Connected]:
    client, login = Connected(), stack.settings.nats_login(role)
    await client.nc.connect(
        login.url,
        user=login.user,
        password=login.password,
        inbox_prefix=login.inbox_prefix,
        error_cb=client.note,
        allow_reconnect=False,
    )
    try:
        yield client
    finally:
        await client.nc.close()


async def test_nobody_connects_without_a_password(running: EmbeddedStack) -> None:
    async def ignore(_error: Exception) -> None: ...

    anonymous, url = Client(), running.settings.nats_login("admin").url
    try:
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await anonymous.connect(url, allow_reconnect=False, error_cb=ignore)
    finally:
        await anonymous.close()


async def test_an_agent_reports_under_its_own_id_only(running: EmbeddedStack) -> None:
    me = running.settings.agent_id
    async with connected(running, "agent") as agent:
        assert await agent.may_publish(f"presence.{me}")
        assert await agent.may_publish(f"telemetry.{W}.metrics.{ID}.1.{me}")
        assert not await agent.may_publish(f"telemetry.{W}.metrics.{ID}.1")
        assert not await agent.may_publish(f"telemetry.{W}.metrics.{ID}.1.other")
        assert not await agent.may_publish(f"tickets.{W}.other")
        assert not await agent.may_publish(f"commands.other.{W}.job.{ID}")
        assert not await agent.may_publish(f"commands.gateway.{W}.job.{ID}")
        assert not await agent.may_publish("presence.other")


async def test_an_agent_writes_no_events_and_assigns_no_work(running: EmbeddedStack) -> None:
    me = running.settings.agent_id
    async with connected(running, "agent") as agent:
        assert not await agent.may_publish(f"events.{W}.job.{ID}")
        assert not await agent.may_publish(f"work.{me}")
        assert not await agent.may_publish("$JS.API.STREAM.DELETE.EVENTS")
        assert not await agent.may_publish("$JS.API.CONSUMER.MSG.NEXT.WORK.agent-other")
        assert not await agent.may_subscribe("_INBOX_agent.other.>")
        assert not await agent.may_subscribe("_INBOX_gateway.>")
        assert not await agent.may_subscribe("events.>")
        assert not await agent.may_subscribe("infer.>")


async def test_an_agent_cannot_have_the_server_write_for_it(running: EmbeddedStack) -> None:
    """The server answers on whatever reply subject it is given, and may itself write anywhere."""
    me = running.settings.agent_id
    async with connected(running, "agent") as agent, connected(running, "admin") as admin:
        before = (await admin.nc.jetstream().stream_info("EVENTS")).state.last_seq
        heard = await admin.nc.subscribe("presence.other")
        await admin.settle()

        for aimed in (f"events.{W}.job.{ID}", "presence.other", f"commands.other.{W}.job.{ID}"):
            await agent.nc.publish(f"$JS.API.CONSUMER.INFO.WORK.agent-{me}", b"", reply=aimed)
            await agent.nc.publish(f"telemetry.{W}.log.{ID}.1.{me}", b"{}", reply=aimed)
        await agent.settle()
        acknowledged = await agent.nc.jetstream().publish(f"telemetry.{W}.log.{ID}.1.{me}", b"{}")
        await admin.settle()

        assert acknowledged.seq >= 4  # what was answered elsewhere was taken all the same
        assert (await admin.nc.jetstream().stream_info("EVENTS")).state.last_seq == before
        assert (await admin.nc.jetstream().stream_info("COMMANDS")).state.messages == 0
        assert heard.pending_msgs == 0


async def test_an_agent_takes_its_work_and_acknowledges_it(running: EmbeddedStack) -> None:
    me = running.settings.agent_id
    async with connected(running, "handlers") as handlers, connected(running, "agent") as agent:
        await handlers.nc.jetstream().publish(f"work.{me}", b"{}")

        bound = await agent.nc.jetstream().pull_subscribe_bind(f"agent-{me}", stream="WORK")
        (message,) = await bound.fetch(1, timeout=5)
        await message.ack_sync()

        assert message.subject == f"work.{me}"
        assert agent.refused == handlers.refused == []


async def test_an_agent_answers_an_inference_request_in_many_parts(running: EmbeddedStack) -> None:
    async with connected(running, "gateway") as gateway, connected(running, "agent") as agent:

        async def answer(request: Msg) -> None:
            for part in range(100):
                await agent.nc.publish(request.reply, str(part).encode())

        await agent.nc.subscribe("infer.>", queue="infer", cb=answer)
        await agent.settle()
        inbox = gateway.nc.new_inbox()
        replies = await gateway.nc.subscribe(inbox)
        await gateway.nc.publish(f"infer.{W}.{ID}", b"{}", reply=inbox)
        parts = [(await replies.next_msg(timeout=5)).data for _ in range(100)]

        assert parts == [str(part).encode() for part in range(100)]
        assert agent.refused == gateway.refused == []


async def test_an_agent_is_told_what_is_in_service_and_when_nobody_listens(
    running: EmbeddedStack,
) -> None:
    async with connected(running, "gateway") as gateway, connected(running, "agent") as agent:

        async def tell(question: Msg) -> None:
            await gateway.nc.publish(question.reply, b"what is in service")

        await gateway.nc.subscribe(f"serving.{W}", queue="gateway", cb=tell)
        control = await agent.nc.subscribe(f"control.{W}.*")
        await gateway.settle()
        await agent.settle()
        told = await agent.nc.request(f"serving.{W}", b"", timeout=5)
        await gateway.nc.publish(f"control.{W}.a-request", b"cancel")
        heard = await control.next_msg(timeout=5)

        assert (told.data, heard.data) == (b"what is in service", b"cancel")
        assert agent.refused == gateway.refused == []
        assert not await agent.may_publish(f"control.{W}.a-request")


async def test_the_gateway_commands_but_writes_no_events(running: EmbeddedStack) -> None:
    async with connected(running, "gateway") as gateway:
        assert await gateway.may_publish(f"infer.{W}.{ID}")
        assert await gateway.may_publish(f"telemetry.{W}.log.{ID}.0")
        assert not await gateway.may_publish(f"telemetry.{W}.log.{ID}.1")
        assert not await gateway.may_publish(f"events.{W}.job.{ID}")
        assert not await gateway.may_publish(f"commands.reaction.{W}.job.{ID}")
        assert not await gateway.may_publish("$JS.API.CONSUMER.CREATE.EVENTS.mine")
        assert await gateway.may_subscribe("live.events.>")
        assert not await gateway.may_subscribe("commands.>")


async def test_handlers_take_commands_append_events_and_reply(running: EmbeddedStack) -> None:
    async with (
        connected(running, "gateway") as gateway,
        connected(running, "handlers") as handlers,
        connected(running, "admin") as admin,
    ):
        live = await gateway.nc.subscribe("live.events.>")
        await gateway.settle()
        await gateway.nc.jetstream().publish(f"commands.gateway.{W}.job.{ID}", b"{}")

        bound = await handlers.nc.jetstream().pull_subscribe_bind("job-commands", stream="COMMANDS")
        (message,) = await bound.fetch(1, timeout=5)
        acknowledged = await handlers.nc.jetstream().publish(f"events.{W}.job.{ID}", b"{}")
        await message.ack_sync()
        followed = await live.next_msg(timeout=5)

        assert acknowledged.seq >= 1
        assert followed.subject == f"live.events.{W}.job.{ID}"
        assert await handlers.may_publish("_INBOX_gateway.someone")
        assert not await handlers.may_publish(f"commands.gateway.{W}.job.{ID}")
        assert not await handlers.may_publish("$JS.API.STREAM.DELETE.EVENTS")
        left = (await admin.nc.jetstream().stream_info("COMMANDS")).state.messages
        assert left == 0


async def test_delivery_reads_events_and_may_say_only_that_a_webhook_is_gone(
    running: EmbeddedStack,
) -> None:
    async with connected(running, "delivery") as delivery:
        for subject in (
            f"commands.delivery.{W}.webhook.{ID}",
            "dead.webhooks.job.0123456789abcdef0123456789abcdef",
            "$JS.API.STREAM.INFO.EVENTS",
            "$JS.API.DIRECT.GET.EVENTS",
        ):
            assert await delivery.may_publish(subject), subject
        for subject in (
            f"events.{W}.job.{ID}",
            f"commands.delivery.{W}.job.{ID}",
            f"commands.gateway.{W}.webhook.{ID}",
            "dead.commands.job.0123456789abcdef0123456789abcdef",
            "retry.webhooks",
            "$JS.API.CONSUMER.CREATE.EVENTS.mine",
            "$JS.API.STREAM.INFO.COMMANDS",
        ):
            assert not await delivery.may_publish(subject), subject
        assert await delivery.may_subscribe("live.events.>")
        assert not await delivery.may_subscribe("live.telemetry.>")
        assert not await delivery.may_subscribe("commands.>")


async def test_projections_read_the_log_and_write_the_feed_alone(running: EmbeddedStack) -> None:
    async with connected(running, "handlers") as handlers:
        await handlers.nc.jetstream().publish(f"events.{W}.model.{ID}", b"1")
    async with connected(running, "projections") as projections:
        reader = await projections.nc.jetstream().subscribe(
            f"events.{W}.model.{ID}", stream="EVENTS", ordered_consumer=True
        )
        first = await asyncio.wait_for(reader.next_msg(), 5)

        assert first.data == b"1"
        assert not await projections.may_publish(f"events.{W}.job.{ID}")
        assert not await projections.may_publish(f"commands.gateway.{W}.job.{ID}")
        assert not await projections.may_publish("$JS.API.CONSUMER.CREATE.COMMANDS.mine")
        fed = await projections.nc.jetstream().publish(f"feed.{W}.model.model_created.{ID}", b"1")
        assert fed.stream == "FEED"


async def test_a_subscriber_reads_the_feed_in_every_way(running: EmbeddedStack) -> None:
    subject = f"feed.{W}.job.job_succeeded.{ID}"
    async with connected(running, "projections") as projections:
        fed = await projections.nc.jetstream().publish(subject, b"1")
    async with connected(running, "subscriber") as subscriber:
        js = subscriber.nc.jetstream(domain="finetrail")
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=fed.seq
        )
        durable = await js.pull_subscribe(subject, "mine", stream="FEED", config=config)
        (pulled,) = await durable.fetch(1, timeout=5)
        await pulled.ack_sync()
        ordered = await js.subscribe(
            subject,
            stream="FEED",
            ordered_consumer=True,
            config=ConsumerConfig(filter_subject=subject),
        )
        followed = await ordered.next_msg(timeout=5)
        stored = await js.get_msg("FEED", fed.seq, direct=True)
        await js.consumer_info("FEED", "mine")
        await js.delete_consumer("FEED", "mine")
        await ordered.unsubscribe()

        assert pulled.data == followed.data == stored.data == b"1"
        assert subscriber.refused == []


async def test_what_a_subscriber_asks_is_answered_to_nobody_else(running: EmbeddedStack) -> None:
    elsewhere = f"events.{W}.job.{ID}"
    async with connected(running, "admin") as admin, connected(running, "subscriber") as subscriber:
        await admin.nc.jetstream().publish(f"feed.{W}.job.job_failed.{ID}", b"1")
        before = (await admin.nc.jetstream().stream_info("EVENTS")).state.last_seq
        for subject in (f"{API}.STREAM.INFO.FEED", f"{API}.DIRECT.GET.FEED"):
            body = b'{"last_by_subj": "feed.>"}' if "GET" in subject else b""
            await subscriber.nc.publish(subject, body, reply=elsewhere)
        answer = await subscriber.nc.request(f"{API}.STREAM.INFO.FEED", b"", timeout=5)

        assert b"FEED" in answer.data  # what was asked before it has been answered too
        assert (await admin.nc.jetstream().stream_info("EVENTS")).state.last_seq == before


async def test_a_subscriber_reads_nothing_else_and_writes_nothing(running: EmbeddedStack) -> None:
    async with connected(running, "subscriber") as subscriber:
        for subject in (
            f"feed.{W}.job.job_succeeded.{ID}",
            f"events.{W}.job.{ID}",
            f"commands.gateway.{W}.job.{ID}",
            f"telemetry.{W}.log.{ID}.0",
            "presence.other",
            "$JS.API.CONSUMER.CREATE.FEED.mine",
            f"{API}.CONSUMER.CREATE.EVENTS.mine",
            f"{API}.CONSUMER.CREATE.COMMANDS.mine",
            f"{API}.CONSUMER.MSG.NEXT.WORK.agent-other",
            f"{API}.DIRECT.GET.EVENTS",
            f"{API}.STREAM.MSG.GET.EVENTS",
            f"{API}.STREAM.MSG.DELETE.FEED",
            f"{API}.STREAM.PURGE.FEED",
            f"{API}.STREAM.DELETE.FEED",
            f"{API}.STREAM.UPDATE.FEED",
            f"{API}.STREAM.CREATE.MINE",
            "$JS.ACK.WORK.agent-other.1.1.1.1.0",
        ):
            assert not await subscriber.may_publish(subject), subject
        for subject in ("events.>", "live.>", "commands.>", "feed.>", "_INBOX_gateway.>", "$JS.>"):
            assert not await subscriber.may_subscribe(subject), subject
