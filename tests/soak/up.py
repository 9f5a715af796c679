"""`finetrail up` with every role as a process of its own that says how many tasks it has."""

import os
import sys
from typing import Final

from finetrail.cli.running import show_first_key
from finetrail.settings import Settings
from finetrail.stack.supervisor import AGENT, Role, run_stack
from tests.crash.up import make_tables

ROLES: Final = ("projections", "handlers", "delivery", "gateway")
PORT: Final = "SOAK_METRICS_{}"  # one port would not do for four processes on one machine


def role(name: str) -> Role:
    given = f"FINETRAIL_METRICS__PORT={os.environ[PORT.format(name.upper())]}"
    command = ("env", given, sys.executable, "-m", "finetrail", name)
    return Role(name, command, serves_http=name == "gateway")


if __name__ == "__main__":
    status = run_stack(
        Settings(),
        roles=(*map(role, ROLES), AGENT),
        prepare_tables=make_tables,
        on_first_start=show_first_key,
    )
    raise SystemExit(status)
