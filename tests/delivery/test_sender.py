"""What is posted reaches public addresses alone, whatever a name stands for, and follows nobody elsewhere."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

import httpcore
import pytest

from adapters.webhook_sender import WebhookSender
from domain.webhooks.addresses import is_public
from tests.delivery.real import Receiver, receiving


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",  # noqa: S104 - refused
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:102:304:0:0:80ff:fffe",
    ],
)
def test_an_address_of_this_network_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


class Names:
    """A resolver that answers one thing after the other, and keeps what it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if not self.answers:
            raise socket.gaierror("no such name")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as receiver:
        yield receiver


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["10.0.0.1", "169.254.169.254"], []]
)
async def test_a_name_that_stands_for_a_private_address_is_refused(addresses: list[str]) -> None:
    sender = WebhookSender(allow_private=False, lookup=Names(addresses))

    answer = await sender.post("https://hooks.example.org/secret-path", {}, b"{}")
    await sender.close()

    assert answer.status is None
    assert "not public" in answer.error
    assert "secret-path" not in answer.error


async def test_what_is_checked_is_what_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked at and private when it is used gets nobody in."""
    rebinding = Names(["93.184.216.34"], ["127.0.0.1"])
    sender = WebhookSender(allow_private=False, lookup=rebinding)
    connected: list[str] = []

    async def refuse(_: object, host: str, *__: object) -> None:
        connected.append(host)
        raise OSError("nobody is there")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", refuse)
    first = await sender.post(f"https://hooks.example.org:{receiver.port}/", {}, b"{}")
    second = await sender.post(f"https://hooks.example.org:{receiver.port}/", {}, b"{}")
    await sender.close()

    assert connected == ["93.184.216.34"]
    assert rebinding.asked == ["hooks.example.org"] * 2
    assert first.error == "nobody is there"
    assert "127.0.0.1, which is not public" in second.error


async def test_of_several_addresses_the_private_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender = WebhookSender(
        allow_private=False, lookup=Names(["10.0.0.1", "93.184.216.34", "2606:2800:220:1::1"])
    )
    connected: list[str] = []

    async def refuse(_: object, host: str, *__: object) -> None:
        connected.append(host)
        raise OSError("nobody is there")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", refuse)
    await sender.post("https://hooks.example.org/", {}, b"{}")
    await sender.close()

    assert connected == ["93.184.216.34", "2606:2800:220:1::1"]


async def test_without_tls_nothing_is_sent_to_the_internet() -> None:
    names = Names(["93.184.216.34"])
    sender = WebhookSender(allow_private=False, lookup=names)

    answer = await sender.post("http://hooks.example.org/", {}, b"{}")
    await sender.close()

    assert "only https" in answer.error
    assert names.asked == []


async def test_a_redirect_is_not_followed() -> None:
    async with receiving(Receiver()) as target:
        moved = Receiver(lambda: f"302 Found\r\nLocation: {target.url}\r\n")
        async with receiving(moved):
            sender = WebhookSender(allow_private=True)
            answer = await sender.post(moved.url, {}, b"{}")
            await sender.close()

    assert answer.status == 302
    assert not answer.accepted
    assert "redirects are not followed" in answer.failure
    assert target.taken == []


async def test_headers_and_body_arrive_and_a_login_in_the_address_becomes_a_header(
    receiver: Receiver,
) -> None:
    sender = WebhookSender(allow_private=True)
    url = receiver.url.replace("http://", "http://me:p%40ss@") + "?token=abc"

    answer = await sender.post(url, {"webhook-id": "msg_1"}, b'{"a":1}')
    await sender.close()

    (posted,) = receiver.taken
    assert (answer.status, answer.text) == (200, "ok")
    assert posted.body == b'{"a":1}'
    assert posted.headers["webhook-id"] == "msg_1"
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert posted.headers["authorization"] == "Basic bWU6cEBzcw=="


async def test_a_receiver_that_says_nothing_is_given_up_in_time(receiver: Receiver) -> None:
    receiver.slow = asyncio.Event()
    sender = WebhookSender(allow_private=True, timeout_s=0.05)

    answer = await sender.post(receiver.url, {}, b"{}")
    receiver.slow.set()
    await sender.close()

    assert (answer.status, answer.error) == (None, "no answer within 0.05 s")


async def test_what_a_receiver_asks_for_is_told() -> None:
    busy = Receiver(lambda: "429 Too Many Requests\r\nRetry-After: 120\r\n")
    async with receiving(busy):
        sender = WebhookSender(allow_private=True)
        answer = await sender.post(busy.url, {}, b"{}")
        await sender.close()

    assert (answer.status, answer.retry_after) == (429, "120")


async def test_an_answer_is_kept_only_so_far() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sender = WebhookSender(allow_private=True)
    answer = await sender.post(f"http://127.0.0.1:{port}/", {}, b"{}")
    await sender.close()
    server.close()

    assert answer.status == 200
    assert answer.text == "x" * 500


async def test_a_name_that_nobody_knows_and_a_port_where_nobody_listens_are_told() -> None:
    unknown = WebhookSender(allow_private=True, lookup=Names())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        deaf = WebhookSender(allow_private=True)
        refused = await deaf.post(f"http://127.0.0.1:{port}/", {}, b"{}")
    no_name = await unknown.post("https://nowhere.example.org/", {}, b"{}")
    await unknown.close()
    await deaf.close()

    assert no_name.error == "the receiver's name cannot be resolved"
    assert refused.status is None
    assert refused.error
