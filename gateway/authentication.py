"""Who is asking, and may they: a bearer key on every request, then the access matrix."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast
from uuid import UUID

from litestar.types import ASGIApp, Receive, Scope, Send

from domain.access.events import KeyIssued, Role
from gateway.access_matrix import ACCESS, may_call
from gateway.api_keys import parse_key, same_secret
from gateway.problems import Problem

_BEARER: Final = b"bearer "
_NO_KEY: Final = KeyIssued(key_id="00000000", name="", role="viewer", secret_hmac="0" * 64)


@dataclass(frozen=True, slots=True)
class Principal:
    """The key that a request came with."""

    key_id: str
    role: Role
    person_id: UUID | None = None  # who holds the key, where that was said

    @property
    def actor(self) -> str:
        return f"key:{self.key_id}"


class Keys(Protocol):
    """The keys in force, in memory: looking one up never waits."""

    @property
    def loaded(self) -> bool:
        """False until the log has been read: nobody can be told from anybody else before."""
        ...

    def find(self, key_id: str) -> KeyIssued | None: ...


Middleware = Callable[[ASGIApp], ASGIApp]


def access_control(keys: Keys, pepper: bytes) -> Middleware:
    """Middleware for the whole application: nothing behind it runs for whoever may not call it."""

    def around(app: ASGIApp) -> ASGIApp:
        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            method, template = str(scope.get("method", "")), _template(scope)
            if ACCESS.get((method, template)) != "public":
                principal = authenticate(_authorization(scope), keys, pepper)
                if not may_call(principal.role, method, template):
                    raise Problem("forbidden", f"A key with the role {principal.role} may not.")
                scope["user"] = principal
            await app(scope, receive, send)

        return cast("Callable[..., Coroutine[Any, Any, None]]", guarded)

    return around


def authenticate(header: bytes | None, keys: Keys, pepper: bytes) -> Principal:
    """The principal behind an ``Authorization`` header.

    Raises:
        Problem: 401, with the same words whether the key was never issued, revoked or forged;
            503 until the keys are known.
    """
    if header is None:
        raise Problem("unauthenticated", "Send an API key as: Authorization: Bearer fpk_…")
    if header[: len(_BEARER)].lower() != _BEARER:
        raise Problem("unauthenticated", "Only the scheme Bearer is known.")
    presented = parse_key(header[len(_BEARER) :].strip().decode("latin-1"))
    if presented is None:
        raise Problem("unauthenticated", "This is no API key; it may have been mistyped or cut.")
    if not keys.loaded:
        raise Problem("not_ready", "The keys have not been read from the log yet; ask again soon.")
    key = keys.find(presented.key_id)
    # An unknown id costs the same time as a wrong secret.
    same = same_secret(pepper, presented.secret, (key or _NO_KEY).secret_hmac)
    if key is None or not same:
        raise Problem("unauthenticated", "This key is not valid, or was revoked.")
    return Principal(key.key_id, key.role, key.person_id)


def _template(scope: Scope) -> str:
    return str(scope.get("path_template", "")) or "/"


def _authorization(scope: Scope) -> bytes | None:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    return values[0] if len(values) == 1 else None
