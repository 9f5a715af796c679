"""A person is forgotten on a whole stack: nothing is left to read, and the log is byte for byte the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from adapters.nats_feed import NatsFeed
from finetrail.audit.verify import verify_log
from finetrail.backup import Wanted, create
from finetrail.backup_files import BackupReader
from finetrail.blob_care import collect
from finetrail.blob_checks import check_all
from finetrail.bootstrap import admin_connection
from finetrail.gateway import run_gateway
from finetrail.owner import issue_key
from finetrail.rebuilding import rebuild
from finetrail.settings import AuditSettings, GatewaySettings, Settings
from finetrail.stack.supervisor import CORE, EmbeddedStack
from tests.infra import free_port

pytestmark = pytest.mark.infra
NAME, LAPTOP, MAIL, ROW = "Ana Quintanilla", "laptop of Quintanilla", "mails of AQ", "I am Ana Q"
SECRETS = (NAME, LAPTOP, MAIL, ROW)
LONG = timedelta(hours=5)
DEADLINE_S = 20.0


def settings_in(folder: Path) -> Settings:
    return Settings(
        data_dir=folder / "data",
        gateway=GatewaySettings(port=0),
        audit=AuditSettings(sign_events=5, sign_seconds=0.3),
    )


def rows() -> bytes:
    return b"text,label\n" + b"".join(b"%s %d,%s\n" % (ROW.encode(), n, b"ab"[n % 2 : n % 2 + 1]) for n in range(40))  # fmt: skip


def api(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"{url}/api/v1",
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=20,
    )


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await holds():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def another_gateway(settings: Settings, key: str) -> AsyncIterator[httpx.AsyncClient]:
    own = settings.gateway.model_copy(update={"port": free_port()})
    settings, stop = settings.model_copy(update={"gateway": own}), asyncio.Event()
    running = asyncio.create_task(run_gateway(settings, stop))
    try:
        async with api(settings.gateway_url, key) as client:

            async def answers() -> bool:
                try:
                    return (await client.get("/people")).is_success
                except httpx.TransportError:
                    return False

            await until(answers)
            yield client
    finally:
        stop.set()
        await running


async def log(settings: Settings) -> list[tuple[int, str, dict[str, str], bytes]]:
    found: list[tuple[int, str, dict[str, str], bytes]] = []
    more = True
    async with admin_connection(settings) as nc:
        feed = NatsFeed(nc)
        while more:
            after = found[-1][0] if found else 0
            page, more = await feed.page("EVENTS", "events.>", after, 500)
            found += [(one.sequence, one.subject, _own(one.headers), one.data) for one in page]
    return found


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """Without what the server says of each answer, as how much is to come."""
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}


async def told(client: httpx.AsyncClient, person: str, dataset: str, sequence: int) -> str:
    paths = (
        "/people",
        f"/people/{person}",
        "/keys",
        "/datasets",
        f"/datasets/{dataset}",
        f"/datasets/{dataset}/rows",
        f"/datasets/{dataset}/content",
        "/events?after=0&limit=100",
        "/events/diff?from=0&limit=100",
        f"/events/{sequence}/why",
        f"/people?as_of={sequence}",
        f"/people/{person}?as_of={sequence}",
        f"/keys?as_of={sequence}",
        f"/datasets/{dataset}?as_of={sequence}",
    )
    return "".join([(await client.get(path)).text for path in paths])


async def in_the_database(dsn: str) -> set[str]:
    """Which of the texts stand in which table, as text or as bytes."""
    every = (
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    connection = await asyncpg.connect(dsn)
    try:
        found, names = set(), [record["name"] for record in await connection.fetch(every)]
        assert {"state.person_key", "archive.event"} <= set(names)
        for name in names:
            for text in SECRETS:
                shapes = [f"%{text}%", f"%{text.encode().hex()}%"]
                asked = f"SELECT EXISTS (SELECT 1 FROM {name} AS t WHERE t::text LIKE ANY($1))"  # noqa: S608
                if await connection.fetchval(asked, shapes):
                    found.add(f"{text} in {name}")
        return found
    finally:
        await connection.close()


def in_blobs(settings: Settings) -> set[Path]:
    files = [path for path in settings.blobs_folder.rglob("*") if path.is_file()]
    return {path for path in files if any(text.encode() in path.read_bytes() for text in SECRETS)}


async def verified(settings: Settings) -> Any:
    found = await verify_log(settings, (), lambda _done, _of: None)
    assert found.findings == [], found.findings
    return found


async def person_key(dsn: str, person: str, key: bytes | None = None) -> bytes | None:
    """What is kept of the person's key; with ``key`` that is put back first."""
    connection = await asyncpg.connect(dsn)
    try:
        if key is not None:
            put = "UPDATE state.person_key SET key = $1, destroyed_at = NULL WHERE person_id = $2"
            await connection.execute(put, key, person)
        left = "SELECT key FROM state.person_key WHERE person_id = $1"
        found: bytes | None = await connection.fetchval(left, person)
        return found
    finally:
        await connection.close()


async def test_what_was_of_a_forgotten_person_is_nowhere_to_be_read(tmp_path: Path) -> None:
    given = settings_in(tmp_path)
    async with EmbeddedStack(given, roles=(CORE,)) as stack:
        settings = stack.settings
        admin = await issue_key(settings, name="admin", role="admin")
        async with (
            api(settings.gateway_url, admin) as first,
            another_gateway(settings, admin) as second,
        ):
            person = (await first.post("/people", json={"name": NAME})).json()["id"]
            body = {"name": LAPTOP, "role": "editor", "person_id": person}
            theirs = (await first.post("/keys", json=body)).json()["secret"]
            async with api(settings.gateway_url, theirs) as client:
                uploaded = await client.post(
                    "/datasets",
                    params={"name": MAIL, "person_id": person},
                    content=rows(),
                    headers={"content-type": "text/csv"},
                )
            assert uploaded.status_code == 201, uploaded.text
            dataset, sequence = uploaded.json()["id"], uploaded.json()["sequence"]

            shown = [await told(client, person, dataset, sequence) for client in (first, second)]
            before, old_key = await log(settings), await person_key(settings.postgres_dsn, person)
            await verified(settings)
            assert all(text in one for one in shown for text in SECRETS)
            assert old_key is not None
            assert in_blobs(settings)
            assert await in_the_database(settings.postgres_dsn) == set()
            assert not any(text.encode() in data for *_, data in before for text in SECRETS)
            assert {
                headers["ce-clientaddress"].partition(":")[0]
                for _, _, headers, _ in before
                if "ce-clientaddress" in headers
            } == {"sealed"}

            done = await first.post(f"/people/{person}/forget", json={"reason": "asked"})
            at_once = [await told(client, person, dataset, sequence) for client in (second, first)]

            assert done.json()["forgotten"] is True, done.text
            assert not any(text in one for one in at_once for text in SECRETS)

            async def ended() -> bool:
                held = (await first.get(f"/people/{person}")).json()["held"]
                return {one["status"] for one in held["keys"] + held["datasets"]} == {
                    "revoked",
                    "deleted",
                }

            await until(ended)
            for url in (settings.gateway_url, str(second.base_url).removesuffix("/api/v1/")):
                async with api(url, theirs) as client:

                    async def refused(client: httpx.AsyncClient = client) -> bool:
                        return (await client.get("/datasets")).status_code == 401

                    await until(refused)

            old_enough = datetime.now(UTC) + LONG
            gone = await collect(settings, now=old_enough, older_than=LONG / 2, delete=True)
            (healthy,) = await check_all(settings)
            async for _ in rebuild(settings, None):
                pass
            again = await told(second, person, dataset, sequence)
            after = await log(settings)

            assert uploaded.json()["sha256"] in {blob.sha256 for blob in gone.blobs}
            assert healthy.ok, healthy.detail
            assert in_blobs(settings) == set()
            assert not any(text in again for text in SECRETS)
            assert await in_the_database(settings.postgres_dsn) == set()
            assert after[: len(before)] == before
            await verified(settings)

        made = await create(settings, tmp_path / "backup", Wanted(), lambda _line: None)
        keys_of_its_own = BackupReader(made.path).person_keys
        await person_key(settings.postgres_dsn, person, old_key)

    async with EmbeddedStack(given, roles=(CORE,)) as stack:

        async def destroyed() -> bool:
            return await person_key(stack.settings.postgres_dsn, person) is None

        await until(destroyed)

    assert keys_of_its_own is not None
    assert old_key not in (made.path / keys_of_its_own).read_bytes()
    assert old_key.hex().encode() not in (made.path / keys_of_its_own).read_bytes()
