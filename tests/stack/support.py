"""Settings for a stack in a test, stand-ins for our roles, and waiting."""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import Role

DEADLINE_S = 20.0

CORE_STAND_IN = """
import http.server, json, os, pathlib
endpoints = pathlib.Path(os.environ["FINETRAIL_DATA_DIR"], "run", "endpoints.json")
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
port = json.loads(endpoints.read_text())["gateway_port"]
http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""

# Like an agent that trains: its child has a session of its own and would outlive it.
AGENT_STAND_IN = """
import os, pathlib, subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
pathlib.Path(os.environ["FINETRAIL_DATA_DIR"], "child.pid").write_text(str(child.pid))
print("the agent stand-in runs", flush=True)
child.wait()
"""


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", gateway=GatewaySettings(port=0))


def stand_ins(folder: Path) -> tuple[Role, ...]:
    return (
        Role("core", (sys.executable, "-c", CORE_STAND_IN), serves_http=True),
        Role("agent", (sys.executable, "-c", AGENT_STAND_IN)),
    )


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
