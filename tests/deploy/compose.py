"""`docker-compose.yml` as Docker would read it, with the secrets that `finetrail deploy env` makes."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from finetrail.deployment import environment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
OURS = ("streams", "gateway", "handlers", "projections", "delivery", "agent")
THEIRS = ("nats", "postgres", "objectstore")
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@cache
def secrets() -> dict[str, str]:
    lines = (line for line in environment().splitlines() if "=" in line)
    return dict(line.split("=", 1) for line in lines)


def variables() -> dict[str, str | None]:
    """Every variable that the file asks for, with its default."""
    return {
        name: default if kind == "-" else None
        for name, kind, default in _VARIABLE.findall(FILE.read_text())
    }


@cache
def services() -> dict[str, Any]:
    def value(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        return default if kind == "-" else secrets()[name]

    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, FILE.read_text()))
    services: dict[str, Any] = loaded["services"]
    return services


def environment_of(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in services()[service]["environment"].items()}
