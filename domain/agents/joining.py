"""The key with which a machine joins, and what it signs to show that it has the private half."""

import base64
import binascii
from typing import Final

USER: Final = bytes([20 << 3])  # the first byte of a user's public NKey: it is written with a U


def statement(token: str, public_key: str, name: str) -> bytes:
    """The token is the nonce: it is random, ours, and good for one machine."""
    return f"finetrail join\n{token}\n{public_key}\n{name}".encode()


def user_key(public_key: str) -> bytes | None:
    """The 32 bytes of Ed25519 in the public NKey of a user; None for a text that is none.

    A NATS server does not start with any other.
    """
    try:
        raw = base64.b32decode(public_key)
    except ValueError:  # also of a letter that is not ASCII
        return None
    # One byte for the kind, the key, and two of a checksum over both.
    check = binascii.crc_hqx(raw[:33], 0).to_bytes(2, "little")
    return raw[1:33] if (len(raw), raw[:1], raw[33:]) == (35, USER, check) else None
