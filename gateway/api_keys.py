"""API keys as text: ``fpk_<id>_<secret>_<checksum>``, made once, shown once, compared by keyed hash."""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import Final, NamedTuple

BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_CHARS: Final = 8
SECRET_CHARS: Final = 43  # 62^43 is just above 2^256
CHECK_CHARS: Final = 6  # 62^6 is above 2^32
_KEY: Final = re.compile(
    rf"fpk_([0-9A-Za-z]{{{ID_CHARS}}})_([0-9A-Za-z]{{{SECRET_CHARS}}})_([0-9A-Za-z]{{{CHECK_CHARS}}})"
)


class NewKey(NamedTuple):
    text: str  # shown once, then forgotten
    key_id: str
    secret_hmac: str


class PresentedKey(NamedTuple):
    key_id: str
    secret: str


def new_key(pepper: bytes, request: str | None = None) -> NewKey:
    """Make a key; what `IssueKey` records of it is ``key_id`` and ``secret_hmac``.

    Args:
        request: the same text gives the same key, so that a repeated request can be answered with
            it although nothing of it was kept; whoever does not know the pepper learns nothing.
    """
    seed = secrets.token_bytes(64)
    if request is not None:
        seed = hmac.new(pepper, f"issue\x1f{request}".encode(), hashlib.sha512).digest()
    chars = _base62(int.from_bytes(seed), ID_CHARS + SECRET_CHARS)
    key_id, secret = chars[:ID_CHARS], chars[ID_CHARS:]
    body = f"fpk_{key_id}_{secret}"
    return NewKey(f"{body}_{_checksum(body)}", key_id, secret_hmac(pepper, secret))


def parse_key(text: str) -> PresentedKey | None:
    """Read a key; None when it is none, or was mistyped: nothing has to be looked up for that."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text.rpartition("_")[0]) != match[3]:
        return None
    return PresentedKey(match[1], match[2])


def secret_hmac(pepper: bytes, secret: str) -> str:
    """One HMAC is enough: the secret has 256 bits, so nobody can try them all."""
    return hmac.new(pepper, secret.encode(), hashlib.sha256).hexdigest()


def same_secret(pepper: bytes, secret: str, stored_hmac: str) -> bool:
    return hmac.compare_digest(secret_hmac(pepper, secret), stored_hmac)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECK_CHARS)


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits
