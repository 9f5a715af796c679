"""Two agents on two network hosts, one store: both work, and neither can take, see or forge what is the other's."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID, uuid4

import httpx
import nats.errors
import nkeys
import pytest
from nats.aio.client import Client

from domain.agents.joining import statement
from domain.blob_tickets import TicketAnswer, TicketQuestion
from domain.blobs import BlobRef
from domain.jobs.commands import ClaimJob
from domain.messages import Command, Envelope, StreamId
from domain.telemetry import LogEmitted, LogLine
from domain.wire import encode_command
from tests.e2e.harness import ROOT, Stack, running_stack, wait_for
from tests.infra import free_port

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(240)]
W = "default"
FEW = {"epochs": 1}


@dataclass
class Host:
    """Where the second agent runs: what to put before its command, and how it sees the stack."""

    address: str
    before: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A network of its own where this machine lets us make one, or else another loopback address."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        yield Host("127.0.0.2")
        return
    with namespace() as made:
        yield made or Host("127.0.0.2")


@contextmanager
def namespace() -> Iterator[Host | None]:
    """A network of its own, joined to ours by one cable."""
    tag = f"{os.getpid() % 100_000}"
    name, ours, theirs = f"ft{tag}", f"fta{tag}", f"ftb{tag}"
    subnet = f"10.231.{os.getpid() % 250}"
    steps = (
        f"ip netns add {name}",
        f"ip link add {ours} type veth peer name {theirs} netns {name}",
        f"ip addr add {subnet}.1/30 dev {ours}",
        f"ip link set {ours} up",
        f"ip -n {name} addr add {subnet}.2/30 dev {theirs}",
        f"ip -n {name} link set {theirs} up",
        f"ip -n {name} link set lo up",
    )
    try:
        done = all(
            subprocess.run(step.split(), capture_output=True, check=False).returncode == 0
            for step in steps
        )
        yield Host(f"{subnet}.1", ("ip", "netns", "exec", name)) if done else None
    finally:
        for step in (f"ip link del {ours}", f"ip netns del {name}"):
            subprocess.run(step.split(), capture_output=True, check=False)


@dataclass
class Second:
    """The other machine and its agent."""

    folder: Path
    host: Host
    token: str
    joined: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.joined["agent_id"])

    @property
    def seed(self) -> str:
        return (self.folder / "agent.seed").read_text().strip()

    def command(self, *arguments: str) -> list[str]:
        return [*self.host.before, sys.executable, "-m", "finetrail", *arguments]


@pytest.fixture(scope="module")
def stack(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        "FINETRAIL_NATS__LISTEN": "0.0.0.0",  # noqa: S104 - the other host is to reach it
        "FINETRAIL_NATS__PORT": str(free_port()),
        "FINETRAIL_GATEWAY__HOST": "0.0.0.0",  # noqa: S104 - likewise
        "FINETRAIL_GATEWAY__ALLOWED_HOSTS": host.address,
        "FINETRAIL_AGENT__THREADS": "1",
    }
    with running_stack(tmp_path_factory.mktemp("two") / "data", **settings) as running:
        yield running


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FINETRAIL")}
    return {**kept, "FINETRAIL_DATA_DIR": str(folder), "FINETRAIL_AGENT__THREADS": "1"}


@pytest.fixture(scope="module")
def second(stack: Stack, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    folder = tmp_path_factory.mktemp("second") / "data"
    token = stack.post("/agents/join-tokens", {"name": "second"})["token"]
    url = f"http://{host.address}:{httpx.URL(stack.url).port}"
    machine = Second(folder, host, token, {})
    done = subprocess.run(
        [*machine.command("agent", "join", url, token), "--name", "second", "--json"],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    machine.joined = json.loads(done.stdout)
    log = (folder.parent / "agent.log").open("wb")
    process = subprocess.Popen(
        machine.command("agent"), cwd=ROOT, env=environment(folder), stdout=log, stderr=log
    )
    try:
        yield machine
    finally:
        log.close()
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(3)  # it was revoked and cannot give back anything
        process.kill()
        process.wait()


def agents(stack: Stack) -> dict[str, Any]:
    return {agent["name"]: agent for agent in stack.get("/agents")["items"]}


def rows() -> bytes:
    texts = [
        f"{word} number {n},{label}\n"
        for n in range(20)
        for word, label in (("yes", "a"), ("no", "b"))
    ]
    return ("text,label\n" + "".join(texts)).encode()


def test_jobs_run_on_both(stack: Stack, second: Second) -> None:
    first = next(name for name in agents(stack) if name != "second")
    wait_for("both being there", lambda: all(a["connected"] for a in agents(stack).values()))
    dataset = stack.upload(rows())
    jobs = [
        stack.post("/jobs", {"dataset_id": dataset["id"], "model": name, "hyperparameters": FEW})
        for name in ("one", "two")
    ]

    done = [
        stack.job_until(job["id"], lambda job: job["status"] != "queued" and job["ended_at"])
        for job in jobs
    ]

    assert [job["status"] for job in done] == ["succeeded", "succeeded"]
    assert {job["agent_id"] for job in done} == {second.id, agents(stack)[first]["id"]}
    theirs = next(job for job in done if job["agent_id"] == second.id)
    lines = stack.get(f"/jobs/{theirs['id']}/logs")["items"]
    assert lines
    assert stack.get(f"/jobs/{theirs['id']}/metrics")["items"]
    assert not list(second.folder.glob("blobs/**/*"))  # its store is the other machine's
    wait_for(
        "both evaluations", lambda: all(stack.evaluation_until_done(job["id"]) for job in jobs)
    )


class Intruder:
    """The second agent's own key in bad hands, and what the server has refused it."""

    def __init__(self, second: Second) -> None:
        self._second = second
        self.nc = Client()
        self.refused: list[str] = []

    async def __aenter__(self) -> Self:
        try:
            await self.nc.connect(
                self._second.joined["nats_url"],
                nkeys_seed_str=self._second.seed,
                inbox_prefix=f"_INBOX_agent.{self._second.id}",
                error_cb=self._note,
                allow_reconnect=False,
            )
        except nats.errors.Error:
            await self.nc.close()  # a login that is refused leaves the socket open
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.nc.close()

    async def _note(self, error: Exception) -> None:
        self.refused.append(str(error))

    async def may_publish(self, subject: str) -> bool:
        self.refused.clear()
        await self.nc.publish(subject, b"{}")
        return await self._passed()

    async def may_subscribe(self, subject: str, queue: str = "") -> bool:
        self.refused.clear()
        subscription = await self.nc.subscribe(subject, queue=queue)
        passed = await self._passed()
        if passed:
            await subscription.unsubscribe()
        return passed

    async def ticket(self, verb: Literal["GET", "PUT"], ref: BlobRef) -> TicketAnswer:
        question = TicketQuestion(verb=verb, blob=ref)
        subject = f"tickets.{W}.{self._second.id}"
        answer = await self.nc.request(subject, question.model_dump_json().encode(), timeout=20)
        return TicketAnswer.model_validate_json(answer.data)

    async def _passed(self) -> bool:
        await self.nc.flush()  # a violation arrives before the pong
        await self.nc.flush()
        return not self.refused


def others_job(stack: Stack, second: Second) -> Any:
    return next(job for job in stack.get("/jobs")["items"] if job["agent_id"] != second.id)


async def test_its_key_opens_nothing_of_the_other_agents(stack: Stack, second: Second) -> None:
    other, job = others_job(stack, second)["agent_id"], others_job(stack, second)["id"]
    published = (
        f"commands.{other}.{W}.job.{job}",
        f"commands.gateway.{W}.job.{job}",
        f"commands.reaction.{W}.job.{job}",
        f"events.{W}.job.{job}",
        f"presence.{other}",
        f"telemetry.{W}.log.{job}.1.{other}",
        f"telemetry.{W}.log.{job}.1",
        f"tickets.{W}.{other}",
        f"work.{other}",
        f"infer.{W}.{job}",
        f"control.{W}.request",
        f"_INBOX_agent.{other}.guess",
        "_INBOX_gateway.guess",
        f"$JS.API.CONSUMER.MSG.NEXT.WORK.agent-{other}",
        f"$JS.API.CONSUMER.INFO.WORK.agent-{other}",
        f"$JS.ACK.WORK.agent-{other}.1.1.1.1.0",
        "$JS.API.CONSUMER.CREATE.WORK.mine.work.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.WORK.mine",
        f"$JS.API.CONSUMER.DELETE.WORK.agent-{other}",
        "$JS.API.CONSUMER.CREATE.EVENTS.mine",
        "$JS.API.STREAM.INFO.EVENTS",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.WORK",
        "$JS.API.STREAM.MSG.GET.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS",
        f"$JS.API.DIRECT.GET.EVENTS.events.{W}.job.{job}",
        "$JS.API.DIRECT.GET.TELEMETRY",
    )
    heard = (
        f"work.{other}",
        f"commands.{other}.>",
        f"_INBOX_agent.{other}.>",
        "_INBOX_agent.>",
        "_INBOX_gateway.>",
        "events.>",
        "live.>",
        "presence.>",
        "telemetry.>",
        "tickets.>",
        "infer.>",
        ">",
    )

    async with Intruder(second) as intruder:
        assert [one for one in published if await intruder.may_publish(one)] == []
        assert [one for one in heard if await intruder.may_subscribe(one)] == []
        assert await intruder.may_publish(f"presence.{second.id}")  # it is let in, after all


async def test_what_the_server_answers_for_it_lands_in_no_log(stack: Stack, second: Second) -> None:
    before = len(stack.events())
    aims = (f"events.{W}.job.{uuid4()}", f"events.{W}.agent.{second.id}", f"work.{uuid4()}")

    async with Intruder(second) as intruder:
        for aimed in aims:
            for asked in (
                f"commands.{second.id}.{W}.job.{uuid4()}",
                f"$JS.API.CONSUMER.INFO.WORK.agent-{second.id}",
                f"serving.{W}",
            ):
                await intruder.nc.publish(asked, b"{}", reply=aimed)
        await intruder.nc.flush()
        with suppress(nats.errors.TimeoutError):  # behind them all, on the same way
            await intruder.nc.request(f"serving.{W}", b"", timeout=5)

    assert stack.get("/keys")["items"]  # the log is read on, and holds nothing unreadable
    assert len(stack.events()) == before


async def test_it_claims_no_work_that_it_was_not_given(stack: Stack, second: Second) -> None:
    job = others_job(stack, second)
    id_ = uuid4()
    envelope: Envelope[Command] = Envelope(
        id=id_,
        stream=StreamId(W, "job", UUID(job["id"])),
        source=second.id,
        actor=f"agent:{second.id}",
        correlation_id=id_,
        causation_id=None,
        sent_at=datetime.now(UTC),
        command=ClaimJob(job_id=UUID(job["id"]), attempt=job["attempt"] + 1, boot_id="b"),
    )
    headers, body = encode_command(envelope)

    async with Intruder(second) as intruder:
        inbox = intruder.nc.new_inbox()
        outcomes = await intruder.nc.subscribe(inbox)
        subject = f"commands.{second.id}.{W}.job.{job['id']}"
        await intruder.nc.jetstream().publish(subject, body, headers=headers | {"reply_to": inbox})
        outcome = json.loads((await outcomes.next_msg(10)).data)

    assert (outcome["status"], outcome["code"]) == ("rejected", "not_yours")


async def test_what_it_says_of_the_others_job_is_not_shown(stack: Stack, second: Second) -> None:
    job = others_job(stack, second)
    said = LogEmitted(lines=(LogLine(time=datetime.now(UTC), message="forged"),))

    async with Intruder(second) as intruder:
        subject = f"telemetry.{W}.log.{job['id']}.{job['attempt']}.{second.id}"
        await intruder.nc.jetstream().publish(
            subject, said.model_dump_json().encode(), headers={"ce-type": "LogEmitted"}
        )
    shown = stack.get(f"/jobs/{job['id']}/logs", limit=1000)["items"]

    assert shown
    assert "forged" not in {line["message"] for line in shown}


async def test_it_gets_no_ticket_for_blobs_that_it_has_no_work_on(
    stack: Stack, second: Second
) -> None:
    upload = stack.upload(b"text,label\nhello,a\nbye,b\nhi,a\nciao,b\n", "secret.csv")
    secret = BlobRef(sha256=upload["sha256"], size=upload["size"], crc32=0)
    version = stack.get("/models/one/versions/1")["files"][0]
    served = BlobRef(sha256=version["sha256"], size=version["size"], crc32=0)

    async with Intruder(second) as intruder:
        refused = await intruder.ticket("GET", secret)
        brought = await intruder.ticket("PUT", secret)
        given = await intruder.ticket("GET", served)

    assert "belongs to no work" in refused.refused
    assert "no attempt is held" in brought.refused
    ticket = given.path.rpartition("/")[2]
    assert hashlib.sha256(stack.http.get(given.path).content).hexdigest() == served.sha256
    assert stack.http.put(given.path, content=b"x").json()["code"] == "ticket_invalid"
    body, _, signature = ticket.partition(".")
    other = f"/api/v1/blobs/{body[:-4]}AAAA.{signature}"
    assert stack.http.get(other).json()["code"] == "ticket_invalid"


def test_a_token_lets_one_machine_in_once(stack: Stack, second: Second) -> None:
    def ask(token: str, seed: str, name: str = "second", signed: str = "") -> Any:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        key = pair.public_key.decode()
        signature = pair.sign(statement(signed or token, key, name)).hex()
        body = {"token": token, "public_key": key, "signature": signature, "name": name}
        return httpx.post(f"{stack.url}/api/v1/agents/join", json=body, trust_env=False)

    thief = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()
    forged = second.token[:-1] + ("0" if second.token[-1] != "0" else "1")

    assert ask(second.token, second.seed).json()["agent_id"] == second.id  # a lost answer
    assert ask(second.token, thief).json()["code"] == "join_token_used"
    assert ask(forged, thief).json()["code"] == "join_token_invalid"
    assert ask(second.token, thief, signed="other").json()["code"] == "join_token_invalid"


@pytest.fixture(scope="module")
def held(stack: Stack, second: Second) -> tuple[Any, Any]:
    """Two long jobs: the one that the second agent holds, and the other's."""
    dataset = stack.get(f"/jobs/{others_job(stack, second)['id']}")["dataset_id"]
    long = {"dataset_id": dataset, "hyperparameters": {"epochs": 50}}
    ids = [stack.post("/jobs", long | {"model": f"long{n}"})["id"] for n in range(2)]

    def found() -> tuple[Any, Any] | None:
        jobs = [stack.get(f"/jobs/{id_}") for id_ in ids]
        mine = [job for job in jobs if job["agent_id"] == second.id]
        return (mine[0], next(job for job in jobs if job not in mine)) if mine else None

    return wait_for("the second holding one", found)


async def test_it_brings_what_it_said_it_would_and_nothing_else(
    stack: Stack, second: Second, held: tuple[Any, Any]
) -> None:
    content = b"what an attempt has made"
    ref = BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content), crc32=0)
    async with Intruder(second) as intruder:
        given = await intruder.ticket("PUT", ref)
        large = await intruder.ticket("PUT", ref.model_copy(update={"size": 2**50}))

    def put(body: bytes) -> httpx.Response:
        return httpx.put(stack.url + given.path, content=body, trust_env=False)

    assert "at most" in large.refused
    assert put(content[:-1]).json()["code"] == "blob_differs"
    assert put(content + b"!").json()["code"] == "blob_differs"
    assert put(content.swapcase()).json()["code"] == "blob_differs"
    assert not list(stack.folder.glob(f"blobs/**/{ref.sha256}"))
    assert put(content).status_code == 204
    assert list(stack.folder.glob(f"blobs/**/{ref.sha256}"))
    assert httpx.get(stack.url + given.path, trust_env=False).json()["code"] == "ticket_invalid"


def test_a_revoked_agent_is_put_out_and_its_work_goes_to_the_other(
    stack: Stack, second: Second, held: tuple[Any, Any]
) -> None:
    lost, kept = held
    stack.post(f"/agents/{second.id}/revoke", {})
    stack.post(f"/jobs/{kept['id']}/cancel", {})

    interrupted = wait_for(
        "the attempt being taken back", lambda: stack.events(type="JobInterrupted", id=lost["id"])
    )
    given = wait_for("the other's claim", lambda: claimed_by(stack, lost["id"], second))
    stack.post(f"/jobs/{lost['id']}/cancel", {})
    assert [event["data"]["reason"] for event in interrupted] == ["the agent was revoked"]
    assert given != second.id
    assert agents(stack)["second"]["status"] == "revoked"
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        asyncio.run(_connects(second))


def claimed_by(stack: Stack, job_id: str, second: Second) -> str | None:
    agent = stack.get(f"/jobs/{job_id}")["agent_id"]
    return agent if agent and agent != second.id else None


async def _connects(second: Second) -> None:
    async with Intruder(second):
        pass
