"""Seals and opens texts with XChaCha20-Poly1305, which says whose text it is and what it says of them."""

import secrets
from uuid import UUID

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from domain.sealing import NONCE_BYTES, Sealed, SealedField, parse, said_with


class XChaChaSealer:
    """A key has 32 bytes. Nonces are random: with 24 bytes no two are the same."""

    def seal(self, key: bytes, person_id: UUID, field: SealedField, text: str) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        box = crypto_aead_xchacha20poly1305_ietf_encrypt(
            text.encode(), said_with(person_id, field), nonce, key
        )
        return Sealed(person_id, nonce + box).text

    def open(self, key: bytes, field: SealedField, text: str) -> str | None:
        """What it says; None where the key is another one, or the text was meant for another place."""
        sealed = parse(text)
        nonce, box = sealed.box[:NONCE_BYTES], sealed.box[NONCE_BYTES:]
        try:
            opened = crypto_aead_xchacha20poly1305_ietf_decrypt(
                box, said_with(sealed.person_id, field), nonce, key
            )
        except CryptoError:
            return None
        return bytes(opened).decode()
