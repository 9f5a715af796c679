"""What may be asked of a person."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.messages import Command
from domain.sealing import MAX_SEALED

MAX_REASON = 500  # characters


class AddPerson(Command):
    type: Literal["AddPerson"] = "AddPerson"
    person_id: UUID
    name: str = Field(min_length=1, max_length=MAX_SEALED)


class ForgetPerson(Command):
    type: Literal["ForgetPerson"] = "ForgetPerson"
    person_id: UUID
    reason: str = Field(default="", max_length=MAX_REASON)


PersonCommand = AddPerson | ForgetPerson
