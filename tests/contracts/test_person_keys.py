"""What every store of person keys promises, asked of the one in memory and of the real one."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from adapters.memory_person_keys import MemoryPersonKeys
from adapters.postgres_person_keys import TABLE, PostgresPersonKeys
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from gateway.ports import PersonKeys


@pytest.fixture(
    params=["memory", pytest.param("postgres", marks=pytest.mark.infra)], scope="module"
)
async def keys(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[PersonKeys]:
    if request.param == "memory":
        yield MemoryPersonKeys()
        return
    folder = tmp_path_factory.mktemp("person-keys")
    settings = Settings(data_dir=folder / "data", gateway=GatewaySettings(port=0))
    async with EmbeddedStack(settings) as running:
        store = PostgresPersonKeys(running.settings.postgres_dsn)
        yield store
        await store.aclose()


async def test_a_person_has_one_key_of_32_bytes(keys: PersonKeys) -> None:
    ana, ben = uuid4(), uuid4()

    made = await asyncio.gather(*(keys.get_or_make(ana) for _ in range(8)))

    assert len(set(made)) == 1
    assert made[0] is not None
    assert len(made[0]) == 32
    assert await keys.get_or_make(ben) != made[0]
    assert await keys.find([ana, uuid4()]) == {ana: made[0]}


async def test_a_destroyed_key_is_gone_and_none_is_made_again(keys: PersonKeys) -> None:
    ana, ben = uuid4(), uuid4()
    await keys.get_or_make(ana)
    kept = await keys.get_or_make(ben)

    assert await keys.destroy([ana]) == 1
    assert await keys.destroy([ana, ana]) == 0

    assert await keys.get_or_make(ana) is None
    assert await keys.find([ana, ben]) == {ana: None, ben: kept}


async def test_who_never_had_a_key_gets_none_after_it_was_destroyed(keys: PersonKeys) -> None:
    ana = uuid4()

    assert await keys.destroy([ana]) == 0
    assert await keys.get_or_make(ana) is None


async def test_nothing_is_asked_of_nobody(keys: PersonKeys) -> None:
    assert await keys.find([]) == {}
    assert await keys.destroy([]) == 0


@pytest.mark.parametrize("keys", [pytest.param("postgres", marks=pytest.mark.infra)], indirect=True)
async def test_no_file_of_the_table_keeps_a_destroyed_key(
    keys: PostgresPersonKeys,
) -> None:
    connection = await asyncpg.connect(keys._dsn)
    where = "SELECT pg_relation_filepath($1::regclass)"
    try:
        ana = uuid4()
        await keys.get_or_make(ana)
        before = await connection.fetchval(where, TABLE)

        await keys.destroy([ana])

        assert await connection.fetchval(where, TABLE) != before  # it was written anew
    finally:
        await connection.close()


async def test_a_database_that_is_away_is_a_connection_error() -> None:
    store = PostgresPersonKeys("postgresql://nobody@127.0.0.1:1/none", timeout_s=2)
    try:
        with pytest.raises(ConnectionError, match="person keys"):
            await store.find([uuid4()])
    finally:
        await store.aclose()
