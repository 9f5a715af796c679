"""A real `finetrail up` in a process of its own, with handles to kill any part of it."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

ROOT = Path(__file__).parents[2]
READY_S = 90.0
LOOK_AT_WORK_S = 0.2  # looking takes from the core on which the work is done
# Of a training. Tests run one on each core; two trainings with two threads each, which wait for one
# another after every layer, take three times as long as two with one thread each.
THREADS = {"FINETRAIL_AGENT__THREADS": "1"}
# Of clients that speak plain HTTP here: reading the authorities of the world takes each of them 20 ms.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
T = TypeVar("T")


def wait_for(
    what: str, condition: Callable[[], T | None], *, within_s: float = 120.0, every_s: float = 0.05
) -> T:
    """The first truthy value of ``condition``; connection trouble counts as not yet."""
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except (httpx.TransportError, httpx.HTTPStatusError, psutil.NoSuchProcess) as error:
            last = error
        time.sleep(every_s)
    raise AssertionError(f"{what} did not happen within {within_s:.0f} s ({last})")


class Stack:
    """One data directory and the `finetrail up` that runs on it."""

    def __init__(
        self, folder: Path, *, program: Sequence[str] = ("finetrail", "up"), **settings: str
    ) -> None:
        self.folder = folder
        self._program = program
        self._settings = settings
        self._up: subprocess.Popen[bytes] | None = None
        self._log = folder.parent / f"{folder.name}.up.log"
        self._key = ""
        self.http = httpx.Client(timeout=30, trust_env=False, verify=NO_AUTHORITIES)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FINETRAIL_DATA_DIR": str(self.folder),
            "FINETRAIL_GATEWAY__PORT": "0",
            "NO_COLOR": "1",
            **THREADS,
            **self._settings,
        }

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", *self._program],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        up = self._up

        def ready() -> bool:
            assert up.poll() is None, self.output()
            return self.is_ready() and self.parent_recorded("agent")

        wait_for("the stack being ready", ready, within_s=READY_S)
        if not self._key:
            self._key = self.cli("keys", "issue", "--name", "tests", "--role", "admin")["key"]
        self.http.headers["Authorization"] = f"Bearer {self._key}"
        self.http.base_url = httpx.URL(self.url)

    def is_ready(self) -> bool:
        if not (self.folder / "run" / "endpoints.json").exists():
            return False
        with suppress(httpx.TransportError):
            url = f"{self.url}/health/ready"
            return httpx.get(url, trust_env=False, verify=NO_AUTHORITIES).status_code == 200
        return False

    def parent_recorded(self, name: str) -> bool:
        return name in self.pids()

    @property
    def url(self) -> str:
        ports = json.loads((self.folder / "run" / "endpoints.json").read_text())
        return f"http://127.0.0.1:{ports['gateway_port']}"

    @property
    def key(self) -> str:
        return self._key

    def output(self) -> str:
        logs = "".join(
            f"\n--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            for log in sorted((self.folder / "logs").glob("*.log"))
        )
        return self._log.read_text(errors="replace")[-3000:] + logs

    def cli(self, *arguments: str) -> Any:
        """Run the command line on this data directory; the answer of `--json`."""
        done = subprocess.run(
            [sys.executable, "-m", "finetrail", *arguments, "--json"],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def pids(self) -> dict[str, int]:
        try:
            recorded = json.loads((self.folder / "run" / "processes.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {
            name: entry if isinstance(entry, int) else entry["pid"]
            for name, entry in recorded.items()
        }

    def kill(self, name: str) -> None:
        """SIGKILL one process by its name, as if the machine had taken it."""
        os.kill(self.pids()[name], signal.SIGKILL)

    def kill_parent(self) -> None:
        assert self._up is not None
        self._up.kill()
        self._up.wait()

    def kill_tree(self) -> None:
        """SIGKILL everything of this stack, the parent first so that nothing is started again."""
        self.kill_parent()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_for("the tree being dead", lambda: not self.processes(), within_s=10)

    def stop(self) -> None:
        if self._up is None or self._up.poll() is not None:
            return
        self._up.send_signal(signal.SIGTERM)
        self._up.wait(60)

    def processes(self) -> list[psutil.Process]:
        """Every living process of this stack but the parent, told by the data directory it was given."""
        mark = str(self.folder)
        return [
            process
            for process in psutil.process_iter()
            if process.pid != os.getpid() and _belongs(process, mark)
        ]

    def training_processes(self) -> list[psutil.Process]:
        return [one for one in self.processes() if "gpu_agent.child" in _command(one)]

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(f"/api/v1{path}", params=query or None)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: object) -> Any:
        answer = self.http.post(f"/api/v1{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def upload(self, content: bytes, name: str = "messages.csv") -> Any:
        answer = self.http.post(
            "/api/v1/datasets",
            params={"filename": name},
            content=content,
            headers={"Content-Type": "text/csv"},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    def job_until(
        self, job_id: str, condition: Callable[[Any], bool], within_s: float = 240
    ) -> Any:
        def look() -> Any:
            job = self.get(f"/jobs/{job_id}")
            return job if condition(job) else None

        return wait_for(
            f"job {job_id} getting there", look, within_s=within_s, every_s=LOOK_AT_WORK_S
        )

    def evaluation_until_done(self, job_id: str, within_s: float = 240) -> Any:
        def look() -> Any:
            evaluation_id = self.get(f"/jobs/{job_id}")["evaluation_id"]
            if not evaluation_id:
                return None
            evaluation = self.get(f"/evaluations/{evaluation_id}")
            return evaluation if evaluation["status"] in {"completed", "failed"} else None

        return wait_for(
            f"evaluation of job {job_id}", look, within_s=within_s, every_s=LOOK_AT_WORK_S
        )

    def events(self, **query: Any) -> list[Any]:
        """The whole log, oldest first."""
        found: list[Any] = []
        after = 0
        while True:
            page = self.get("/events", after=after, limit=100, **query)["items"]
            if not page:
                return found
            found += page
            after = page[-1]["sequence"]

    def adapter_sha256(self, job_id: str) -> str:
        job = self.get(f"/jobs/{job_id}")
        version = self.get(f"/models/{job['model']}/versions/{job['version']['number']}")
        files = {entry["path"]: entry["sha256"] for entry in version["files"]}
        sha256 = files["lora_adapters/adapter_model.safetensors"]
        assert re.fullmatch(r"[0-9a-f]{64}", sha256)
        return str(sha256)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended since it was found
        return []


def _belongs(process: psutil.Process, mark: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        environment = process.environ().values()
        told = any(value == mark or value.endswith(f":{mark}") for value in environment)
        return (
            told
            or any(mark in argument for argument in process.cmdline())
            or (process.name() == "postgres" and process.cwd().startswith(mark))
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


@contextmanager
def running_stack(
    folder: Path, *, program: Sequence[str] = ("finetrail", "up"), **settings: str
) -> Iterator[Stack]:
    stack = Stack(folder, program=program, **settings)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        leftovers = [" ".join(_command(process)) for process in stack.processes()]
        for process in stack.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        stack.http.close()
        assert leftovers == [], leftovers
