"""`finetrail feed`: what is asked wrongly is said before anything is waited for."""

import json

import pytest

from finetrail.cli.exits import Exit
from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--type", "job_suceeded"), "job_succeeded"),
        (("--since", "yesterday"), "a time such as"),
        (("--limit", "0"), "limit"),
    ],
)
def test_a_type_or_a_start_that_cannot_be_meant_is_a_usage_error(
    cli: Cli, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("feed", "tail", *arguments)

    assert done.exit_code == Exit.USAGE
    assert said in done.stderr


def test_credentials_of_no_stack_are_not_made_up(cli: Cli) -> None:
    assert cli("feed", "credentials").exit_code == Exit.UNREACHABLE


def test_credentials_of_another_server_must_be_set(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETRAIL_NATS__URL", "nats://nats.example.org:4222")
    unset = cli("feed", "credentials")
    monkeypatch.setenv("FINETRAIL_NATS__SUBSCRIBER__PASSWORD", "known")

    assert unset.exit_code == Exit.USAGE
    assert "FINETRAIL_NATS__SUBSCRIBER__PASSWORD" in unset.stderr
    assert json.loads(cli("feed", "credentials", "--json").stdout) == {
        "url": "nats://nats.example.org:4222",
        "user": "subscriber",
        "password": "known",
    }
