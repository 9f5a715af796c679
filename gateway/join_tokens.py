"""Join tokens as text: ``fjt_<agent>_<secret>``. The secret is drawn from the pepper, so a forged one costs one HMAC."""

import hashlib
import hmac
import re
from typing import Final
from uuid import UUID

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from domain.agents.joining import user_key

_TOKEN: Final = re.compile(r"fjt_([0-9a-f]{32})_([0-9a-f]{64})")


def new_token(pepper: bytes, agent_id: UUID) -> str:
    """The one token of this agent; a repeated request can be answered with it again."""
    return f"fjt_{agent_id.hex}_{_secret(pepper, agent_id)}"


def agent_of(pepper: bytes, token: str) -> UUID | None:
    """Whose token it is; None for a text that was not made here."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    agent_id = UUID(match[1])
    return agent_id if hmac.compare_digest(match[2], _secret(pepper, agent_id)) else None


def token_hmac(pepper: bytes, token: str) -> str:
    """What the log keeps of a token."""
    return hmac.new(pepper, f"join token\x1f{token}".encode(), hashlib.sha256).hexdigest()


def signed_by(public_key: str, statement: bytes, signature: str) -> bool:
    """Whether whoever has the private half of this NKey signed it; ``signature`` is hexadecimal."""
    key = user_key(public_key)
    if key is None:
        return False
    try:
        VerifyKey(key).verify(statement, bytes.fromhex(signature))
    except (ValueError, BadSignatureError):
        return False
    return True


def _secret(pepper: bytes, agent_id: UUID) -> str:
    return hmac.new(pepper, f"join\x1f{agent_id}".encode(), hashlib.sha256).hexdigest()
