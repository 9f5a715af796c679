"""A real S3 server for tests: SeaweedFS in a folder of its own, on free ports; killed by pid."""

import http.client
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio

from adapters.s3_requests import S3Access
from tests.infra import free_port

START_S = 60.0  # three seconds on a quiet machine
WEED = Path(sys.executable).with_name("weed")
# What the server would open for itself, each with a gRPC port beside it.
PARTS = ("master", "volume", "filer", "s3")
ADMIN = ("finetrail", "finetrail-secret")
READER = ("reader", "reader-secret")


@dataclass(frozen=True)
class SeaweedServer:
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def access(self, bucket: str, keys: tuple[str, str] = ADMIN) -> S3Access:
        return S3Access(
            endpoint=self.endpoint,
            bucket=bucket,
            access_key=keys[0],
            secret_key=keys[1],
            secure=False,
            public_endpoint=f"http://{self.endpoint}",
        )

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Write what lies there, behind a store's back."""
        with self._client() as client:
            client.put_object(bucket, name, io.BytesIO(content), len(content))

    def remove_all(self, bucket: str) -> None:
        with self._client() as client:
            for each in client.list_objects(bucket, recursive=True):
                client.remove_object(bucket, each.object_name)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        pool = urllib3.PoolManager()
        access, secret = ADMIN
        try:
            yield Minio(
                self.endpoint,
                access_key=access,
                secret_key=secret,
                secure=False,
                region="us-east-1",
                http_client=pool,
            )
        finally:
            pool.clear()


@contextmanager
def seaweed_server(folder: Path) -> Iterator[SeaweedServer]:
    data = folder / "data"
    data.mkdir(parents=True)
    ports = {name: free_port() for part in PARTS for name in (part, f"{part}.grpc")}
    identities = folder / "s3.json"
    identities.write_text(
        json.dumps(
            {
                "identities": [
                    _identity(ADMIN, "Admin", "Read", "List", "Tagging", "Write"),
                    _identity(READER, "Read:readable", "List:readable"),
                ]
            }
        )
    )
    command = [str(WEED), "-logtostderr=true", "server", f"-dir={data}"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]
    command += ["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]
    command += ["-master.volumeSizeLimitMB=256", "-volume.max=30", "-volume.preStopSeconds=0"]
    command += ["-volume.minFreeSpace=1GiB", "-filer", f"-filer.localSocket={data}/filer.sock"]
    command += ["-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
    command += [f"-s3.config={identities}"]
    command += [f"-{part}.port={ports[part]}" for part in PARTS]
    command += [f"-{part}.port.grpc={ports[f'{part}.grpc']}" for part in PARTS]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "GOMEMLIMIT": "256MiB", "HOME": str(folder)},
        )
    try:
        _wait_until_it_answers(ports["s3"], process, folder / "weed.log")
        yield SeaweedServer(ports["s3"], process)
    finally:
        process.kill()  # it takes its time to end by itself
        process.wait()
        for socket in Path("/tmp").glob(
            "seaweedfs-*.sock"
        ):  # where it puts them, whatever TMPDIR says
            if socket.stem.rpartition("-")[2] in map(str, ports.values()):
                socket.unlink(missing_ok=True)


def _identity(keys: tuple[str, str], *actions: str) -> dict[str, Any]:
    return {
        "name": keys[0],
        "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}],
        "actions": list(actions),
    }


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == http.HTTPStatus.FORBIDDEN:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise AssertionError(
        f"no answer in {START_S:.0f} s:\n{log.read_text(errors='replace')[-3000:]}"
    )
