"""`finetrail agent join`: a machine makes its own key and shows the token that lets it in."""

import asyncio
import os
import ssl
from typing import Any, Final

import httpx
import nkeys
from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError

from adapters.nats_connection import close, encryption, reason
from domain.agents.joining import statement
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.stack.state import JoinedAgent, StackPaths, as_joined, load_joined, write_private

ASK_S: Final = 30.0
PAUSE_S: Final = 0.1
LET_IN_S: Final = 15.0  # the server takes a new agent in within milliseconds of its joining


def join(settings: Settings, url: str, token: str, name: str) -> JoinedAgent:
    """Join, and write down what the agent of this machine needs; it may be asked again.

    Raises:
        StackError: The token was refused, the gateway does not answer, or the folder is another's.
    """
    paths = StackPaths(settings.folder)
    if paths.secrets.exists():
        raise StackError(
            f"{paths.root} is the data directory of a stack, which has an agent of its own.",
            "Give another folder with --data-dir.",
        )
    if known := load_joined(paths):
        raise StackError(
            f"{paths.root} is that of agent {known.agent_id} already.",
            "Start it with `finetrail agent`, or give another folder with --data-dir.",
        )
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not paths.agent_seed.exists():  # else an answer was lost, and the same key asks again
        seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        write_private(paths.agent_seed, seed.decode() + "\n")
    told = _ask(url, token, name, paths.agent_seed.read_text().strip())
    try:
        joined = JoinedAgent.model_validate(
            {
                **told,
                "name": name,
                "gateway_url": url.rstrip("/"),
            }  # by which it is reached from here
        )
    except ValidationError as error:
        raise StackError(f"{url} does not answer as a gateway does: {error}.") from error
    write_private(paths.joined, joined.model_dump_json(indent=2) + "\n")
    return joined


async def why_not_let_in(settings: Settings, joined: JoinedAgent) -> str | None:
    """Why NATS cannot be reached from here as this agent; None if it can."""
    why = "it does not answer"
    login = as_joined(settings, StackPaths(settings.folder), joined).nats_login("agent")
    clock = asyncio.get_running_loop().time
    until = clock() + LET_IN_S
    while clock() < until:  # not by a timeout around it: the client loses a cancellation at times
        nc = Client()
        try:
            await nc.connect(
                login.url,
                nkeys_seed_str=login.seed,
                allow_reconnect=False,
                error_cb=_ignore,  # the call that failed raises as well
                **encryption(login.url),
            )
        except (OSError, NatsError) as error:
            why = reason(error, login.url)
            if isinstance(error, ssl.SSLError):
                return why  # waiting does not mend it
            await asyncio.sleep(PAUSE_S)
        else:
            return None
        finally:
            await close(nc)
    return why


async def _ignore(_error: Exception) -> None:
    """Keep the client from writing what is raised anyway to the log."""


def _ask(url: str, token: str, name: str, seed: str) -> dict[str, Any]:
    pair = nkeys.from_seed(bytearray(seed.encode()))
    public_key: str = pair.public_key.decode()
    signature: bytes = pair.sign(statement(token, public_key, name))
    body = {
        "token": token,
        "public_key": public_key,
        "signature": signature.hex(),
        "name": name,
    }
    try:
        answer = httpx.post(f"{url.rstrip('/')}/api/v1/agents/join", json=body, timeout=ASK_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StackError(
            f"The gateway at {url} does not answer: {error}.",
            "Check the address, and that the gateway listens for other machines "
            "(FINETRAIL_GATEWAY__HOST). Ask again with the same token.",
        ) from error
    try:
        told = answer.json()
    except ValueError:
        told = None
    if not answer.is_success or not isinstance(told, dict):
        said = told.get("detail") if isinstance(told, dict) else answer.text[:200]
        raise StackError(f"{url} refuses: {said} ({answer.status_code})")
    return told
