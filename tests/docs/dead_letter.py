"""Puts a command that nobody can read into the stack of the data directory: it becomes a dead letter."""

import asyncio
import time
import uuid

import nats

from domain.subjects import command_subject
from finetrail.cli.session import connected, running_settings

WITHIN_S = 30.0


async def send() -> None:
    settings = running_settings()
    login = settings.nats_login("gateway")
    nc = await nats.connect(
        login.url, user=login.user, password=login.password, inbox_prefix=login.inbox_prefix
    )
    subject = command_subject("gateway", settings.workspace, "job", uuid.uuid4())
    await nc.jetstream().publish(subject, b"nothing that anybody could read")
    await nc.close()


def main() -> None:
    asyncio.run(send())
    deadline = time.monotonic() + WITHIN_S
    with connected(None, None) as client:
        while not client.dead_letters():
            if time.monotonic() > deadline:
                raise TimeoutError("the command did not become a dead letter")
            time.sleep(0.1)


if __name__ == "__main__":
    main()
