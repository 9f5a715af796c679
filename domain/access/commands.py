"""What may be asked of a workspace's access."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.access.events import Role
from domain.messages import Command
from domain.sealing import MAX_SEALED


class IssueKey(Command):
    """The handler looks its holder up and fills ``forgotten``."""

    type: Literal["IssueKey"] = "IssueKey"
    key_id: str = Field(pattern=r"^[A-Za-z0-9]{8}$")
    name: str = Field(min_length=1, max_length=MAX_SEALED)  # sealed where there is a holder
    role: Role
    secret_hmac: str = Field(pattern=r"^[0-9a-f]{64}$")
    person_id: UUID | None = None  # who holds it
    forgotten: bool = False


class RevokeKey(Command):
    type: Literal["RevokeKey"] = "RevokeKey"
    key_id: str


AccessCommand = IssueKey | RevokeKey
