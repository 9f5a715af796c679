"""An older build keeps away from what a newer one has written; a newer one takes over what is older."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nats.errors import NoRespondersError
from typer.testing import CliRunner

from finetrail.bootstrap import admin_connection, bootstrap, differences
from finetrail.cli import app
from finetrail.cli.exits import Exit
from finetrail.compatibility import check_log
from finetrail.doctor import diagnose
from finetrail.settings import NatsSettings, Settings
from finetrail.stack.data_format import (
    FORMAT,
    Written,
    check_directory,
    check_stream,
    record_directory,
    stream_metadata,
    this_build,
)
from finetrail.stack.errors import StackError
from finetrail.stack.state import StackPaths, load_secrets
from finetrail.stack.supervisor import EmbeddedStack

OURS = this_build()
NEWER = (
    OURS.model_copy(update={"format": FORMAT + 1, "version": "99.1"}),
    OURS.model_copy(update={"events": (*OURS.events, "JobPaused 1"), "version": "99.1"}),
    OURS.model_copy(update={"events": (*OURS.events, "JobSubmitted 2"), "version": "99.1"}),
    OURS.model_copy(update={"events": (*OURS.events, "JobSpec.method dream"), "version": "99.1"}),
)
OLDER = OURS.model_copy(update={"format": 0, "version": "0.0.1", "events": OURS.events[:3]})
NEWER_FORMAT = {"finetrail-format": str(FORMAT + 1), "finetrail-version": "99.1"}
ROLES = ("up", "core", "gateway", "handlers", "projections", "delivery", "agent")


def a_directory(folder: Path, written: Written | str | None) -> StackPaths:
    """As a stack leaves it: secrets, a log, a database, blobs, and who wrote it last."""
    paths = StackPaths(folder)
    for each in (paths.nats, paths.postgres, paths.root / "blobs"):
        each.mkdir(parents=True)
        (each / "something").write_text("kept")
    load_secrets(paths)
    if written is not None:
        text = written if isinstance(written, str) else written.model_dump_json()
        paths.format.write_text(text)
    return paths


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder with a hash of what is in it, and when it was changed."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mtime_ns} {_hash(path)}"
        for path in sorted(folder.rglob("*"))
    } | {".": str(folder.stat().st_mtime_ns)}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@pytest.mark.parametrize("newer", NEWER, ids=["layout", "event", "version of an event", "word"])
async def test_a_stack_on_a_newer_directory_refuses_before_it_touches_anything(
    settings: Settings, newer: Written
) -> None:
    paths = a_directory(settings.folder, newer)
    before = tree(paths.root)

    with pytest.raises(StackError) as refused:
        await EmbeddedStack(settings).start()

    assert tree(paths.root) == before
    assert "last used by finetrail 99.1" in refused.value.message
    assert "Install finetrail 99.1 or newer" in refused.value.hint


@pytest.mark.parametrize("command", ROLES)
def test_each_process_alone_refuses_a_newer_directory(
    settings: Settings, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = a_directory(settings.folder, NEWER[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINETRAIL_DATA_DIR", str(paths.root))
    before = tree(paths.root)

    done = CliRunner().invoke(app, [command])

    assert done.exit_code == Exit.FAILED
    assert "its format is" in done.stderr
    assert "restore the backup" in done.stderr
    assert tree(paths.root) == before


def test_events_that_are_not_known_are_named(tmp_path: Path) -> None:
    many = OURS.model_copy(update={"events": tuple(f"New{n} 1" for n in range(5))})
    paths = a_directory(tmp_path, many)

    with pytest.raises(StackError, match=r"New0 1, New1 1, New2 1 and 2 more"):
        check_directory(paths)


@pytest.mark.parametrize("damaged", ["{", "[]", '{"format": "soon", "version": "1"}'])
def test_a_record_that_cannot_be_read_is_not_guessed_at(tmp_path: Path, damaged: str) -> None:
    paths = a_directory(tmp_path, damaged)

    with pytest.raises(StackError, match="cannot be told"):
        check_directory(paths)
    with pytest.raises(StackError, match="cannot be told"):
        record_directory(paths)

    assert paths.format.read_text() == damaged


@pytest.mark.parametrize("older", [OLDER, None], ids=["older", "from before there was a record"])
def test_an_older_directory_is_taken_over_and_says_so(
    tmp_path: Path, older: Written | None
) -> None:
    paths = a_directory(tmp_path, older)

    check_directory(paths)
    record_directory(paths)
    first = tree(paths.root)
    record_directory(paths)

    assert json.loads(paths.format.read_text()) == OURS.model_dump(mode="json")
    assert paths.format.stat().st_mode & 0o777 == 0o600
    assert tree(paths.root) == first  # the second time there is nothing to write


def test_a_record_of_a_far_newer_build_can_still_be_read(tmp_path: Path) -> None:
    text = json.dumps({"format": 7, "version": "99.1", "shape": {"of": ["things", "to", "come"]}})
    paths = a_directory(tmp_path, text)

    with pytest.raises(StackError, match=r"99\.1"):
        check_directory(paths)


def test_the_log_says_the_same_as_the_directory() -> None:
    check_stream(stream_metadata(), "The log")
    check_stream({}, "The log")
    with pytest.raises(StackError, match=f"its format is {FORMAT + 1}"):
        check_stream(stream_metadata() | {"finetrail-format": str(FORMAT + 1)}, "The log")


def test_what_is_compared_names_the_words_that_an_older_build_could_not_read() -> None:
    assert {"JobSubmitted 1", "JobSpec.method sft"} <= set(OURS.events)
    assert not [named for named in OURS.events if named.split(" ")[0].endswith(".type")]
    size = sum(len(f"{name}{value}") for name, value in stream_metadata().items())
    assert size < 64 * 1024, "the server takes no more than 128 KiB of a stream's metadata"


async def test_the_doctor_says_it_and_touches_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.stack.test_doctor import _torch_is_fine

    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)
    paths = a_directory(settings.folder, NEWER[1])
    before = tree(paths.root)

    found = {check.name: check for check in await diagnose(settings)}["data format"]

    assert not found.ok
    assert "JobPaused 1" in found.detail
    assert tree(paths.root) == before


@pytest.mark.infra
async def test_an_older_log_is_brought_up_to_date_and_a_newer_one_left_alone(
    running: EmbeddedStack,
) -> None:
    settings = running.settings
    assert json.loads(running.paths.format.read_text()) == OURS.model_dump(mode="json")
    async with admin_connection(settings) as nc:
        await _update(nc, {"finetrail-version": "0.0.1"})
        assert await differences(nc, [settings.agent_id]) == ["EVENTS was made by another build"]
        for role in ("core", "gateway", "handlers", "projections", "delivery", "agent"):
            await check_log(settings, role)
        await bootstrap(settings)
        assert await differences(nc, [settings.agent_id]) == []

        newer = stream_metadata() | NEWER_FORMAT
        await _update(nc, newer)
        before = await _config(nc)
        for role in ("core", "gateway", "handlers", "projections", "delivery"):
            with pytest.raises(StackError, match=r"The log at .* last used by finetrail 99\.1"):
                await check_log(settings, role)
        with pytest.raises(StackError, match=r"99\.1"):
            await bootstrap(settings)
        assert await _config(nc) == before

        await _update(nc, {})
        await bootstrap(settings)


class Recovering:
    """A connection to a server that cannot tell of its streams at first."""

    is_closed = False

    def __init__(self, metadata: Mapping[str, str]) -> None:
        busy = {"code": 503, "description": "JetStream system temporarily unavailable"}
        self._answers = [None, {"error": busy}, {"config": {"metadata": dict(metadata)}}]

    async def request(self, *_: object, **__: object) -> Any:
        answer = self._answers.pop(0)
        if answer is None:
            raise NoRespondersError
        return SimpleNamespace(data=json.dumps(answer).encode())

    async def close(self) -> None:
        pass


async def test_a_log_that_cannot_be_asked_yet_is_not_taken_for_an_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect(*_: object, **__: object) -> Recovering:
        return Recovering(stream_metadata() | NEWER_FORMAT)

    monkeypatch.setattr("finetrail.compatibility.connect", connect)
    monkeypatch.setattr("finetrail.compatibility.close", Recovering.close)
    monkeypatch.setattr("finetrail.compatibility.RETRY_S", 0)
    settings = Settings(nats=NatsSettings(url="nats://127.0.0.1:1"))

    with pytest.raises(StackError, match="newer than this"):
        await check_log(settings, "gateway")


async def _config(nc: Any) -> dict[str, Any]:
    answer = json.loads((await nc.request("$JS.API.STREAM.INFO.EVENTS", b"{}")).data)
    config: dict[str, Any] = answer["config"]
    return config


async def _update(nc: Any, metadata: Mapping[str, str]) -> None:
    config = await _config(nc) | {"metadata": dict(metadata)}
    reply = await nc.request("$JS.API.STREAM.UPDATE.EVENTS", json.dumps(config).encode())
    assert "error" not in json.loads(reply.data), reply.data


@pytest.mark.infra
async def test_a_stack_takes_over_the_directory_of_a_build_that_kept_no_record(
    settings: Settings,
) -> None:
    async with EmbeddedStack(settings) as stack, admin_connection(stack.settings) as nc:
        paths = stack.paths
        kept = await nc.jetstream().publish("events.default.job.j1", b"before")
        await _update(nc, {})
    paths.format.unlink()
    older = json.loads(paths.secrets.read_text())
    del older["api_key_pepper"]
    paths.secrets.write_text(json.dumps(older))

    async with EmbeddedStack(settings) as stack, admin_connection(stack.settings) as nc:
        again = await nc.jetstream().get_msg("EVENTS", kept.seq)
        found = await differences(nc, [stack.settings.agent_id])
        pepper = stack.settings.api_key_pepper

    assert again.data == b"before"
    assert found == []
    assert json.loads(paths.secrets.read_text())["api_key_pepper"].encode() == pepper
    assert json.loads(paths.secrets.read_text())["stack_id"] == older["stack_id"]
    assert json.loads(paths.format.read_text()) == OURS.model_dump(mode="json")
