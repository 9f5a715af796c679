"""`finetrail up` with gateway, handlers and projections as processes of their own."""

import sys

from finetrail.cli.running import show_first_key
from finetrail.projections import create_tables
from finetrail.settings import Settings
from finetrail.stack.supervisor import AGENT, Role, run_stack


def role(name: str, *, serves_http: bool = False) -> Role:
    return Role(name, (sys.executable, "-m", "finetrail", name), serves_http=serves_http)


async def make_tables(settings: Settings) -> None:
    await create_tables(settings.postgres_dsn)


if __name__ == "__main__":
    roles = (role("projections"), role("handlers"), role("gateway", serves_http=True), AGENT)
    status = run_stack(
        Settings(), roles=roles, prepare_tables=make_tables, on_first_start=show_first_key
    )
    raise SystemExit(status)
