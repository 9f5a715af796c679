"""The key that signs heads: made once, outside of the log, replaced only by one that it vouches for."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from adapters.audit_files import HEADS, KEYS, append, read_heads, read_keys
from domain.audit import Head, Key, key_id, moment
from finetrail.settings import Settings
from finetrail.stack.state import write_private
from projections.archive import CannotSign

KEY_FILE: Final = "audit.key"
FOLDER: Final = "audit"


class KeyFile:
    """Implements `projections.archive.Signer` with a file of 32 bytes as hexadecimal digits.

    ``folder`` keeps the public keys and the heads beside it, where a lost database does not reach.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder

    def sign(self, log: str, sequence: int, hash_: str, known: Sequence[Key] = ()) -> Head:
        try:
            signing = self._ready(known)
        except OSError as error:
            raise CannotSign(f"the audit key cannot be read or made: {error}") from error
        key = key_id(bytes(signing.verify_key))
        head = Head(log, sequence, hash_, moment(datetime.now(UTC)), key)
        return replace(head, signature=signing.sign(head.statement()).signature.hex())

    def public_keys(self) -> Sequence[Key]:
        return vouched(read_keys(self._folder / KEYS))

    def heads(self) -> Iterable[Head]:
        keys = {key.key: key for key in self.public_keys()}
        return [head for head in read_heads(self._folder / HEADS) if is_signed(head, keys)]

    def public_key(self) -> Key | None:
        """The key that signs now; None before there is one."""
        if not self._path.exists():
            return None
        key = key_id(bytes(self._read().verify_key))
        return next((known for known in self.public_keys() if known.key == key), None)

    def rotate(self) -> Key:
        """Put a new key in the place of this one, which vouches for it and is gone then.

        Raises:
            CannotSign: There is no key that could vouch for another one.
        """
        if not self._path.exists():
            raise CannotSign(f"{self._path} is not there: no key has signed here yet")
        former = self._ready()
        new = SigningKey.generate()
        # Known before it signs: a crash in between leaves the former one in use.
        record = self._record(new.verify_key, by=former)
        write_private(self._path, new.encode().hex() + "\n")
        return record

    def _ready(self, elsewhere: Sequence[Key] = ()) -> SigningKey:
        """The key, made if there has never been one."""
        known = {key.key for key in (*self.public_keys(), *elsewhere)}
        if not self._path.exists():
            if known:
                raise CannotSign(
                    f"{self._path} is not there: put the key there that has signed before, from a "
                    "backup or from the machine that signed"
                )
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._path, SigningKey.generate().encode().hex() + "\n")
        signing = self._read()
        if not known:
            self._record(signing.verify_key, by=signing)
        elif key_id(bytes(signing.verify_key)) not in known:
            raise CannotSign(
                f"{self._path} holds another key than those that have signed before: put the last of "
                "them back"
            )
        return signing

    def _read(self) -> SigningKey:
        text = self._path.read_text().strip()
        try:
            return SigningKey(bytes.fromhex(text))
        except ValueError as error:
            raise CannotSign(f"{self._path} holds no key: 64 hexadecimal digits") from error

    def _record(self, public: VerifyKey, *, by: SigningKey) -> Key:
        key = Key(
            key=key_id(bytes(public)),
            public_key=bytes(public).hex(),
            time=moment(datetime.now(UTC)),
            by=key_id(bytes(by.verify_key)),
        )
        key = replace(key, signature=by.sign(key.statement()).signature.hex())
        append(self._folder / KEYS, [key.record()])
        return key


def open_key(settings: Settings) -> KeyFile:
    path = settings.audit.key_file or settings.folder / KEY_FILE
    return KeyFile(path.expanduser().absolute(), settings.folder / FOLDER)


def vouched(keys: Sequence[Key]) -> Sequence[Key]:
    """The first key, which vouches for itself, and those that one before them has vouched for."""
    known: dict[str, Key] = {}
    for key in keys:
        by = key if not known and key.by == key.key else known.get(key.by)
        if by is not None and _verified(by, key.statement(), key.signature):
            known.setdefault(key.key, key)
    return list(known.values())


def is_signed(head: Head, keys: dict[str, Key]) -> bool:
    """Whether one of these keys has signed it."""
    key = keys.get(head.key)
    return key is not None and _verified(key, head.statement(), head.signature)


def _verified(key: Key, statement: bytes, signature: str) -> bool:
    try:
        VerifyKey(bytes.fromhex(key.public_key)).verify(statement, bytes.fromhex(signature))
    except BadSignatureError:
        return False
    return True


def is_private(path: Path) -> bool:
    """Whether nobody but the owner can read it."""
    return not path.stat().st_mode & 0o077
