"""The configuration of a cluster's nodes is what is printed, and the server takes it."""

import json
import os
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from finetrail import deployment
from finetrail.bootstrap import stream_configs
from finetrail.cli import app
from finetrail.settings import NatsRole
from finetrail.stack.nats_server import find_server

ROOT = Path(__file__).parents[2]
NODES = [f"nats-{number}:6222" for number in (1, 2, 3)]
COMMAND = ["deploy", "nats-config", "--cluster", "finetrail", "--node", "$NATS_NODE"]
COMMAND += [word for node in NODES for word in ("--route", node)]


def test_the_configuration_of_a_node_is_the_one_that_is_printed() -> None:
    printed = CliRunner().invoke(app, COMMAND).stdout

    assert (ROOT / "deploy/nats/cluster.conf").read_text() == printed, (
        "make it anew: finetrail deploy nats-config --cluster finetrail --node '$NATS_NODE' "
        "--route nats-1:6222 --route nats-2:6222 --route nats-3:6222 > deploy/nats/cluster.conf"
    )


@pytest.mark.infra
def test_the_server_takes_it_with_a_name_from_its_environment() -> None:
    passwords = {deployment.password_variable(role): "s1" for role in get_args(NatsRole)}
    done = subprocess.run(
        [find_server(), "-t", "-c", ROOT / "deploy/nats/cluster.conf"],
        env={**os.environ, **passwords, "NATS_NODE": "nats-2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_accounts_and_durability_are_those_of_a_single_server() -> None:
    node = deployment.ClusterNode("c", "n", "127.0.0.1:1", ["127.0.0.1:1"])
    alone, member = (
        json.loads(_quoted(deployment.nats_config("a", {}, node=each))) for each in (None, node)
    )

    assert {key: member[key] for key in alone if key != "server_name"} == {
        key: value for key, value in alone.items() if key != "server_name"
    }
    assert member["jetstream"]["sync_interval"] == "always"


def test_nodes_know_each_other_by_their_ca() -> None:
    node = deployment.ClusterNode("c", "n", "127.0.0.1:1", ["127.0.0.1:1"], ca="ca.pem")
    text = deployment.nats_config("a", {}, node=node, certificate=("cert.pem", "key.pem"))

    assert json.loads(_quoted(text))["cluster"]["tls"] == {
        "cert_file": "cert.pem",
        "key_file": "key.pem",
        "ca_file": "ca.pem",
        "verify": True,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--cluster", "c"],
        ["--node", "n"],
        ["--cluster", "c", "--node", "n"],
        ["--tls-ca", "ca.pem"],
        ["--cluster", "c", "--node", "n", "--route", "a:1", "--tls-ca", "ca.pem"],
    ],
)
def test_half_of_a_node_is_refused(words: list[str]) -> None:
    assert CliRunner().invoke(app, ["deploy", "nats-config", *words]).exit_code == 2


def test_streams_of_a_cluster_have_their_replicas_and_write_as_it_can() -> None:
    for stream in stream_configs(replicas=3):
        assert stream["num_replicas"] == 3
        assert "persist_mode" not in stream


def _quoted(text: str) -> str:
    """Variables as JSON has them."""
    return "\n".join(
        line.replace(": $", ': "$').replace("PASSWORD", 'PASSWORD"') if ": $" in line else line
        for line in text.splitlines()
    )
