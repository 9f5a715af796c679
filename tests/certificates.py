"""Certificates for tests, made by openssl: an authority, and what it has signed for this machine."""

import subprocess
from pathlib import Path
from typing import Final

NEW_KEY: Final = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    "-nodes",
)


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, capture_output=True, check=True)


def make_certificate(folder: Path) -> None:
    """The authority is `ca.pem`; `server.pem` with `server.key` is for the name localhost alone."""
    authority = ("-subj", "/CN=Authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(folder, *NEW_KEY, *authority)
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=nats")
    named = ("-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE")
    openssl(folder, *NEW_KEY, *signed, *named, "-keyout", "server.key", "-out", "server.pem")
