"""`finetrail audit` as it is typed: what it prints, and the code it ends with."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetrail.cli import app
from finetrail.cli.exits import Exit
from finetrail.settings import Settings
from tests.audit.bundles import FIRST, bundle

runner = CliRunner()
KEY = bytes(FIRST.verify_key).hex()


def test_a_bundle_that_holds_ends_with_0(tmp_path: Path) -> None:
    path = bundle().write(tmp_path / "evidence.zip")

    said = runner.invoke(app, ["audit", "verify", "--offline", str(path), "--key", KEY])

    assert said.exit_code == Exit.OK, said.output
    assert "proven: everything up to event 100" in said.output


def test_a_bundle_that_does_not_hold_ends_with_1_and_names_the_event(tmp_path: Path) -> None:
    files = bundle()
    del files.events[44]
    path = files.write(tmp_path / "evidence.zip")

    said = runner.invoke(app, ["audit", "verify", "--offline", str(path)])
    told = runner.invoke(app, ["audit", "verify", "--offline", str(path), "--json"])

    assert said.exit_code == told.exit_code == Exit.FAILED
    assert "DOES NOT HOLD: event 45, missing" in said.output
    assert json.loads(told.output)["findings"][0]["sequence"] == 45


def test_what_is_no_bundle_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_text("no")

    said = runner.invoke(app, ["audit", "verify", "--offline", str(tmp_path / "no.zip")])

    assert said.exit_code == Exit.USAGE
    assert "is no bundle" in said.output


def test_without_a_stack_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETRAIL_DATA_DIR", str(tmp_path / "data"))

    for command in (["status"], ["verify"], ["export", str(tmp_path / "evidence.zip")]):
        assert runner.invoke(app, ["audit", *command]).exit_code == Exit.UNREACHABLE
    assert runner.invoke(app, ["audit", "key"]).exit_code == Exit.FAILED
    assert runner.invoke(app, ["audit", "rotate-key"]).exit_code == Exit.FAILED


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    said = runner.invoke(app, ["audit", "export", str(tmp_path / "e.zip"), "--from", "yesterday"])

    assert said.exit_code == Exit.USAGE
    assert "neither a sequence nor a time such as 2026-11-20T09:00:00Z" in said.output


@pytest.mark.infra
def test_the_log_is_verified_and_exported(
    archived: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.cli.session.running_settings", lambda: archived)
    path = tmp_path / "evidence.zip"

    said = runner.invoke(app, ["audit", "verify"])
    told = runner.invoke(app, ["audit", "verify", "--json"])
    exported = runner.invoke(app, ["audit", "export", str(path), "--from", "40", "--to", "50"])
    stands = runner.invoke(app, ["audit", "status"])
    wrong = runner.invoke(app, ["audit", "verify", "--key", "ab" * 32])

    assert said.exit_code == told.exit_code == exported.exit_code == stands.exit_code == Exit.OK
    assert "everything up to event 107" in said.output
    assert json.loads(told.output)["holds"]
    assert "events 31 to 60" in exported.output
    assert "event 107" in stands.output
    assert wrong.exit_code == Exit.FAILED
    assert "the key that you trust has not signed here" in wrong.output
