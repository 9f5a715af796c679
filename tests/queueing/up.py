"""`finetrail up` with an agent whose children are stand-ins."""

import sys

from finetrail.cli.running import show_first_key
from finetrail.settings import Settings
from finetrail.stack.supervisor import CORE, Role, run_stack

AGENT = Role("agent", (sys.executable, "-m", "tests.queueing.agent"))

if __name__ == "__main__":
    raise SystemExit(run_stack(Settings(), roles=(CORE, AGENT), on_first_start=show_first_key))
