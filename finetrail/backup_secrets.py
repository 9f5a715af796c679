"""A stack's secrets in a backup: locked with a passphrase, or not there at all.

They are the keys to everything else, and a backup is copied about; so nobody gets them by default.
"""

import hashlib
import hmac
import json
import os
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from finetrail.backup_files import BackupDamaged, PepperCheck
from finetrail.stack.errors import StackError
from finetrail.stack.state import StackPaths

FILE: Final = "secrets.locked.json"
KEPT: Final = ("secrets.json", "audit.key")  # of a data directory
# OWASP's advice for scrypt; a guess costs an attacker 128 MiB and half a second.
SCRYPT: Final[Mapping[str, int]] = {"n": 2**17, "r": 8, "p": 1, "maxmem": 256 * 1024**2}
KEY_BYTES: Final = 32
LEAST: Final = 12  # characters of a passphrase


class WrongPassphrase(StackError):
    """The secrets do not open with it."""


def passphrase_from(file: Path | None) -> str | None:
    """The first line of a file.

    Raises:
        StackError: It is too short to keep anything.
    """
    if file is None:
        return None
    found = (file.read_text().splitlines() or [""])[0]
    if len(found) < LEAST:
        raise StackError(
            f"The passphrase in {file} has {len(found)} characters.", f"Use {LEAST} or more."
        )
    return found


def kept_secrets(paths: StackPaths, audit_key: Path | None = None) -> dict[str, bytes]:
    """What a data directory keeps secret, by file name."""
    places = {name: paths.root / name for name in KEPT}
    if audit_key is not None:
        places["audit.key"] = audit_key
    return {name: place.read_bytes() for name, place in places.items() if place.is_file()}


def lock(files: Mapping[str, bytes], passphrase: str) -> bytes:
    salt = secrets.token_bytes(16)
    box = SecretBox(_derived(passphrase, salt))
    plain = json.dumps({name: b64encode(data).decode() for name, data in files.items()})
    locked = {
        "kdf": "scrypt n=131072 r=8 p=1",
        "cipher": "xsalsa20-poly1305 (libsodium secretbox), nonce first",
        "salt": b64encode(salt).decode(),
        "box": b64encode(bytes(box.encrypt(plain.encode()))).decode(),
    }
    return json.dumps(locked, indent=1).encode()


def unlock(locked: bytes, passphrase: str) -> dict[str, bytes]:
    """Give the files by name.

    Raises:
        WrongPassphrase: It is another one.
        BackupDamaged: There is nothing that could be opened.
    """
    try:
        said: dict[str, Any] = json.loads(locked)
        salt, box = b64decode(said["salt"]), b64decode(said["box"])
    except (ValueError, KeyError, TypeError) as error:
        raise BackupDamaged(f"{FILE} cannot be read: {error}.") from error
    try:
        plain = SecretBox(_derived(passphrase, salt)).decrypt(box)
    except (CryptoError, ValueError) as error:
        raise WrongPassphrase(
            "The backup's secrets do not open with this passphrase.", "Nothing was changed."
        ) from error
    files: dict[str, str] = json.loads(plain)
    return {name: b64decode(data) for name, data in files.items()}


def pepper_check(pepper: bytes) -> PepperCheck:
    salt = os.urandom(16)
    return PepperCheck(salt=salt.hex(), scrypt=_derived(pepper.hex(), salt).hex())


def same_pepper(check: PepperCheck, pepper: bytes) -> bool:
    derived = _derived(pepper.hex(), bytes.fromhex(check.salt)).hex()
    return hmac.compare_digest(derived, check.scrypt)


def _derived(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase.encode(), salt=salt, dklen=KEY_BYTES, **SCRYPT)
