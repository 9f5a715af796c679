"""deploy/finetrail.service says what the command line understands, and what systemd does."""

import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from finetrail.cli import app
from finetrail.stack.supervisor import AGENT, CORE, SERVER_STOP_S
from tests.deploy.compose import ROOT
from tests.deploy.test_compose import setting_names

UNIT = ROOT / "deploy/finetrail.service"


def service() -> dict[str, str]:
    parsed = RawConfigParser(strict=True)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # names have capitals
    parsed.read(UNIT)
    return dict(parsed["Service"])


def test_its_command_and_its_settings_exist() -> None:
    program, *words = service()["ExecStart"].split()
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    name, _, value = service()["Environment"].partition("=")

    assert command.callback is not None
    assert program == f"{service()['WorkingDirectory']}/.venv/bin/finetrail"
    assert name in setting_names()
    assert value == f"/var/lib/{service()['StateDirectory']}"


def test_the_stack_is_left_to_end_its_children_in_order_and_has_time_for_it() -> None:
    longest = AGENT.stop_s + CORE.stop_s + 2 * SERVER_STOP_S

    assert service()["KillMode"] == "mixed"
    assert int(service()["TimeoutStopSec"]) > longest
    assert service()["Restart"] == "always"


def test_what_it_keeps_is_closed_to_other_accounts() -> None:
    assert service()["StateDirectoryMode"] == "0700"
    assert service()["UMask"] == "0077"
    assert service()["User"] != "root"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="it needs systemd-analyze")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    text = UNIT.read_text().replace(
        "/srv/finetrail/.venv/bin/finetrail", str(Path(sys.executable).with_name("finetrail"))
    )
    (tmp_path / "finetrail.service").write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "finetrail.service")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
