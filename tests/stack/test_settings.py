"""Where settings come from, which of them wins, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from finetrail.settings import (
    AgentSettings,
    BlobSettings,
    GatewaySettings,
    NatsSettings,
    NatsUser,
    PostgresSettings,
    S3Settings,
    SettingMissing,
    Settings,
    as_environment,
    available_cores,
)

S3 = S3Settings(
    endpoint="s3.example.org:9000", bucket="blobs", access_key="a", secret_key=SecretStr("s")
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_environment_beats_env_file_beats_toml(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "finetrail.toml").write_text(
        'workspace = "toml"\nlog_level = "DEBUG"\n[gateway]\nport = 1\nhost = "toml"\n'
    )
    (empty_folder / ".env").write_text("FINETRAIL_WORKSPACE=file\nFINETRAIL_GATEWAY__PORT=2\n")
    monkeypatch.setenv("FINETRAIL_GATEWAY__PORT", "3")

    settings = Settings()

    assert (settings.log_level, settings.workspace) == ("DEBUG", "file")
    assert (settings.gateway.host, settings.gateway.port) == ("toml", 3)


def test_another_toml_file_can_be_named(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / "other.toml").write_text('workspace = "other"\n')
    monkeypatch.setenv("FINETRAIL_CONFIG", "other.toml")

    assert Settings().workspace == "other"


def test_a_named_toml_file_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETRAIL_CONFIG", "missing.toml")

    with pytest.raises(ValueError, match=r"missing\.toml"):
        Settings()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("finetrail.toml", "[gateway]\nprot = 8420\n"),
        ("finetrail.toml", "gatway = 1\n"),
        (".env", "FINETRAIL_GATEWAY__PROT=8420\n"),
        (".env", "FINETRAIL_GATWAY=1\n"),
    ],
)
def test_a_misspelt_name_in_a_file_is_refused(empty_folder: Path, file: str, text: str) -> None:
    (empty_folder / file).write_text(text)

    with pytest.raises(ValidationError):
        Settings()


def test_other_tools_may_share_the_env_file(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text("HF_HOME=/srv/hf\n")

    assert Settings().workspace == "default"


def test_a_workspace_that_is_no_subject_token_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(workspace="team.a")


@pytest.mark.parametrize(
    ("field", "value"),
    [("endpoint", "https://s3.example.org"), ("bucket", "Blobs"), ("public_endpoint", "s3:9000")],
)
def test_an_s3_server_that_is_named_in_the_wrong_way_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValidationError, match=field):
        S3Settings.model_validate({**S3.model_dump(), field: value})


def test_blobs_lie_in_one_place_only() -> None:
    with pytest.raises(ValidationError, match="not in both"):
        BlobSettings(folder=Path("/srv/blobs"), s3=S3)


def test_secrets_do_not_show_when_settings_are_printed() -> None:
    settings = Settings(postgres=PostgresSettings(dsn=SecretStr("postgresql://u:hunter2@h/d")))

    assert "hunter2" not in repr(settings)


def test_a_child_reads_the_same_settings_from_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = Settings(
        data_dir=Path("/srv/data"),
        workspace="team-a",
        gateway=GatewaySettings(port=9000),
        nats=NatsSettings(url="nats://n:1", agent=NatsUser(password=SecretStr("p"))),
        blobs=BlobSettings(s3=S3),
        agent=AgentSettings(threads=3, device="cpu"),
    )

    for name, value in as_environment(given).items():
        monkeypatch.setenv(name, value)

    assert Settings() == given


def test_a_setting_that_nobody_gave_is_asked_for_by_its_variable() -> None:
    with pytest.raises(SettingMissing, match="FINETRAIL_POSTGRES__DSN"):
        _ = Settings().postgres_dsn


def test_each_role_listens_on_its_own_inbox() -> None:
    settings = Settings(nats=NatsSettings(url="nats://n:1"), agent=AgentSettings(id="a1"))

    assert settings.nats_login("handlers").inbox_prefix == b"_INBOX_handlers"
    assert settings.nats_login("agent").inbox_prefix == b"_INBOX_agent.a1"
    assert settings.nats_login("agent").user == "agent"


def test_threads_default_to_the_cores_of_this_process() -> None:
    assert Settings().threads == available_cores() >= 1
    assert Settings(agent=AgentSettings(threads=7)).threads == 7


def test_the_example_file_shows_every_setting_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = (Path(__file__).parents[2] / ".env.example").read_text().splitlines()
    shown = [line.lstrip("#").split("=")[0] for line in lines if "=" in line]

    for line in lines:
        if line.startswith("FINETRAIL_"):
            monkeypatch.setenv(*line.split("=", 1))

    assert set(_variables("FINETRAIL_", Settings)) <= set(shown)
    assert Settings() == Settings.model_construct()


def _variables(prefix: str, section: type[BaseModel]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        inner: list[Any] = [
            kind for kind in (field.annotation, *get_args(field.annotation)) if _section(kind)
        ]
        if inner:
            yield from _variables(f"{prefix}{name.upper()}__", inner[0])
        else:
            yield prefix + name.upper()


def _section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
