"""From options, environment and data directory to a client: which server, and with which key."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from finetrail.cli.exits import UsageProblem
from finetrail.client import Client, ServerUnreachable, Unauthorized
from finetrail.owner import cli_key, cli_key_file
from finetrail.settings import Settings
from finetrail.stack.data_format import check_directory, record_directory
from finetrail.stack.state import StackPaths, load_endpoints, resolve_settings

PATIENCE_S: Final = 3.0  # a gateway that restarts is back after one or two
KEY_VISIBLE_S: Final = 10.0  # a key just issued is accepted when the read model has seen it


def load_settings() -> Settings:
    """Read the settings; what is wrong with them is a mistake in their use."""
    try:
        return Settings()
    except ValidationError as error:
        named = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        raise UsageProblem(f"the settings do not hold: {named}") from error
    except ValueError as error:
        raise UsageProblem(f"the settings do not hold: {error}") from error


def resolved_settings() -> Settings:
    """Settings for a process of a stack, with what the data directory adds to them."""
    settings = _resolved(load_settings())
    record_directory(StackPaths(settings.folder))
    return settings


def running_settings() -> Settings:
    """Settings of the stack that runs in the data directory, or of the servers that are named.

    Raises:
        ServerUnreachable: There is neither.
    """
    settings = load_settings()
    if settings.nats.url is not None:
        return _resolved(settings)
    running = _running(settings)
    if running is None:
        raise ServerUnreachable(str(settings.folder), "no stack runs there")
    return running


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator[Client]:
    """A client for the server that is meant.

    Without a URL that is the stack of the data directory, and without a key whoever owns that
    directory needs none: the key of this command line is kept in it.
    """
    if url and key:
        with Client(_checked(url), key, patience_s=PATIENCE_S) as client:
            yield client
        return
    settings = load_settings()
    running = _running(settings)
    if running is None:
        if not url and not key:
            raise ServerUnreachable(str(settings.folder), "no stack runs there")
        with Client(_checked(url or settings.gateway_url), key, patience_s=PATIENCE_S) as client:
            yield client
        return
    mine = url is None or _same_server(url, running.gateway_url)
    made = bool(mine and not key and not cli_key_file(running).exists())
    chosen = key or (asyncio.run(cli_key(running)) if mine else None)
    with Client(_checked(url or running.gateway_url), chosen, patience_s=PATIENCE_S) as client:
        if made:
            wait_until_accepted(client)
        yield client


def wait_until_accepted(client: Client) -> None:
    """Wait for a key that was just issued; one that is never accepted shows in the next call."""
    deadline = time.monotonic() + KEY_VISIBLE_S
    while time.monotonic() < deadline:
        try:
            client.jobs(limit=1)
        except Unauthorized:
            time.sleep(0.05)
        else:
            return


def job_id(client: Client, named: str) -> str:
    """A job's id as typed, or that of the newest for `last`."""
    if named != "last":
        return named
    newest = client.jobs(limit=1)
    if not newest:
        raise UsageProblem("there is no job yet")
    return newest[0].id


def _running(settings: Settings) -> Settings | None:
    """Settings with the addresses of the stack in this data directory, if there is one."""
    paths = StackPaths(settings.folder)
    if load_endpoints(paths) is None or not paths.secrets.exists():
        return None
    return _resolved(settings)


def _resolved(settings: Settings) -> Settings:
    """Refuse the directory of a newer build before anything is read from it or written there."""
    check_directory(StackPaths(settings.folder))
    return resolve_settings(settings)


def _same_server(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return "127.0.0.1" if host in {"localhost", "::1"} else host, parts.port


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageProblem(f"{url!r} is no URL of a server; it looks like http://127.0.0.1:8420")
    return url
