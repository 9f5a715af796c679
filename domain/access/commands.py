"""What may be asked of a workspace's access."""

from typing import Literal

from pydantic import Field

from domain.access.events import Role
from domain.messages import Command


class IssueKey(Command):
    type: Literal["IssueKey"] = "IssueKey"
    key_id: str = Field(pattern=r"^[A-Za-z0-9]{8}$")
    name: str = Field(min_length=1, max_length=100)
    role: Role
    secret_hmac: str = Field(pattern=r"^[0-9a-f]{64}$")


class RevokeKey(Command):
    type: Literal["RevokeKey"] = "RevokeKey"
    key_id: str


AccessCommand = IssueKey | RevokeKey
