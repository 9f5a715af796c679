"""What a data directory remembers, and who may read it."""

import json
from pathlib import Path

import pytest

from finetrail.settings import AgentSettings, NatsSettings, SettingMissing, Settings
from finetrail.stack.errors import StackError
from finetrail.stack.state import (
    Endpoints,
    StackPaths,
    load_secrets,
    resolve_settings,
    write_private,
)


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    return StackPaths(tmp_path)


def test_secrets_are_made_once_and_only_their_owner_may_read_them(paths: StackPaths) -> None:
    made = load_secrets(paths)

    assert load_secrets(paths) == made
    assert paths.secrets.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(made.api_key_pepper)) == 32
    assert [file.name for file in paths.root.iterdir()] == ["secrets.json"]


def test_a_secret_that_an_older_file_lacks_is_added_for_good(paths: StackPaths) -> None:
    older = json.loads(load_secrets(paths).model_dump_json())
    del older["api_key_pepper"]
    write_private(paths.secrets, json.dumps(older))

    first, second = load_secrets(paths), load_secrets(paths)

    assert first == second
    assert first.agent_id == older["agent_id"]


def test_a_damaged_secrets_file_is_never_replaced(paths: StackPaths) -> None:
    paths.secrets.write_text("{")

    with pytest.raises(StackError, match="backup"):
        load_secrets(paths)

    assert paths.secrets.read_text() == "{"


def test_what_the_user_left_open_is_filled_in(settings: Settings) -> None:
    run = StackPaths(settings.folder).run
    run.mkdir(parents=True)
    endpoints = Endpoints(nats_port=1111, postgres_port=2222, gateway_port=3333)
    (run / "endpoints.json").write_text(endpoints.model_dump_json())

    resolved = resolve_settings(settings)

    assert resolved.nats_login("gateway").url == "nats://127.0.0.1:1111"
    assert resolved.nats_login("gateway").password != resolved.nats_login("agent").password
    assert resolved.postgres_dsn.endswith("@127.0.0.1:2222/finetrail")
    assert resolved.gateway_url == "http://127.0.0.1:3333"
    assert resolved.agent_id == resolve_settings(settings).agent_id
    assert resolved.api_key_pepper == resolve_settings(settings).api_key_pepper


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    given = Settings(
        data_dir=tmp_path, nats=NatsSettings(url="nats://n:1"), agent=AgentSettings(id="mine")
    )

    resolved = resolve_settings(given)

    assert resolved.nats == given.nats
    assert resolved.agent_id == "mine"


def test_without_a_running_stack_there_is_no_address(settings: Settings) -> None:
    with pytest.raises(SettingMissing, match="finetrail up"):
        resolve_settings(settings).nats_login("gateway")
