"""Sealed text: what the log says of a person so that only whoever has that person's key can read it.

Written as ``sealed:v1:<person>:<base64url of nonce and ciphertext>``. Without the key nobody can tell
more of it than whose it is and how long it is.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

# What a sealed text says, which is sealed with it: of one place it cannot be read in another.
SealedField = Literal["person.name", "key.name", "key.address", "dataset.name"]

PREFIX: Final = "sealed:v1:"
NONCE_BYTES: Final = 24  # long enough to be drawn at random for ever
TAG_BYTES: Final = 16
MAX_SEALED: Final = 1500  # characters; 200 characters of four bytes each take 1,176
_SEALED: Final = re.compile(
    r"sealed:v1:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}):([A-Za-z0-9_-]+)"
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed text in its parts."""

    person_id: UUID
    box: bytes  # nonce, then ciphertext and tag

    @property
    def text(self) -> str:
        encoded = base64.urlsafe_b64encode(self.box).rstrip(b"=").decode()
        return f"{PREFIX}{self.person_id}:{encoded}"


def parse(text: str) -> Sealed:
    """Read a sealed text.

    Raises:
        ValueError: It is none; of each there is one spelling.
    """
    found = _SEALED.fullmatch(text)
    if found is None:
        raise ValueError("this is no sealed text")
    try:
        box = base64.b64decode(found[2] + "=" * (-len(found[2]) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("the sealed text was cut or altered") from error
    sealed = Sealed(UUID(found[1]), box)
    if len(box) < NONCE_BYTES + TAG_BYTES or sealed.text != text:
        raise ValueError("the sealed text was cut or altered")
    return sealed


def is_sealed(text: str) -> bool:
    return person_of(text) is not None


def person_of(text: str) -> UUID | None:
    """Whose sealed text it is; None where it is clear."""
    try:
        return parse(text).person_id
    except ValueError:
        return None


def said_with(person_id: UUID, field: SealedField) -> bytes:
    """What is bound to a sealed text without being in it."""
    return f"{person_id}\x1f{field}".encode()
