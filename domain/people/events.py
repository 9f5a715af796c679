"""What happens to a person. Names stand here sealed: see `domain.sealing`."""

from typing import Literal
from uuid import UUID

from domain.messages import Event


class PersonAdded(Event):
    type: Literal["PersonAdded"] = "PersonAdded"
    person_id: UUID
    name: str  # sealed


class PersonForgotten(Event):
    """From here on nobody may read what is sealed under the person's key; the key is destroyed."""

    type: Literal["PersonForgotten"] = "PersonForgotten"
    person_id: UUID
    reason: str


PersonEvent = PersonAdded | PersonForgotten
