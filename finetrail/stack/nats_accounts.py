"""The accounts of a NATS server: the log with those who keep it; agents and subscribers reach little of it.

Permissions alone do not keep them apart from the log: whatever an agent may ask the server, it may
ask with any reply subject, and the server itself, which may do everything, answers there. One
acknowledgement with the reply ``events.…`` would be an event that nobody can read. Replies do not
leave an account, so an agent's end where nothing listens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from domain.feed import DOMAIN as SUBSCRIBERS_DOMAIN
from finetrail.stack.nats_server import permissions

CORE: Final = "CORE"
AGENTS: Final = "AGENTS"
SUBSCRIBERS: Final = "SUBSCRIBERS"

# What agents ask or tell, each within its permissions.
_TO_CORE: Final = (
    "commands.>",
    "telemetry.>",
    "presence.*",
    "serving.*",
    "tickets.*.*",
    "$JS.API.CONSUMER.INFO.WORK.*",
    "$JS.API.CONSUMER.MSG.NEXT.WORK.*",
    "$JS.ACK.WORK.>",
    "_INBOX_gateway.>",  # answers to requests; an agent may publish none that it was not asked for
)
_TO_AGENTS: Final = ("_INBOX_agent.>", "infer.>", "control.>")


# What subscribers ask of the streams that are open to them, and where they are answered.
_SUBSCRIBED: Final = tuple(
    subject.replace(f"$JS.{SUBSCRIBERS_DOMAIN}.API.", "$JS.API.")
    for subject in permissions("subscriber", "")["publish"]["allow"]
)
_TO_SUBSCRIBERS: Final = ("_INBOX.>",)
# An account's own $JS.API is the server's, which tells it that it has no JetStream.
_OWN_API: Final = f"$JS.{SUBSCRIBERS_DOMAIN}.API."
_ANSWERED_OFTEN: Final = ("$JS.API.CONSUMER.MSG.NEXT.", "$JS.API.DIRECT.GET.")


def accounts(
    core: Sequence[Mapping[str, Any]],
    agents: Sequence[Mapping[str, Any]],
    subscribers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The ``accounts`` of a server's configuration with these users."""
    to_core = (*_TO_CORE, *_SUBSCRIBED)
    exports = [
        *(_service(subject) for subject in to_core),
        *({"stream": subject} for subject in (*_TO_AGENTS, *_TO_SUBSCRIBERS)),
    ]
    return {
        CORE: {"jetstream": "enabled", "users": list(core), "exports": exports},
        AGENTS: {"users": list(agents), "imports": _imports(_TO_CORE, _TO_AGENTS)},
        SUBSCRIBERS: {
            "users": list(subscribers),
            "imports": [*map(_subscribed, _SUBSCRIBED), *_imports((), _TO_SUBSCRIBERS)],
        },
    }


def _service(subject: str) -> dict[str, str]:
    often = subject.startswith(_ANSWERED_OFTEN)
    return {"service": subject, **({"response_type": "Stream"} if often else {})}


def _subscribed(subject: str) -> dict[str, Any]:
    imported: dict[str, Any] = {"service": {"account": CORE, "subject": subject}}
    if subject.startswith("$JS.API."):
        imported["to"] = _OWN_API + subject.removeprefix("$JS.API.")
    return imported


def _imports(services: Sequence[str], streams: Sequence[str]) -> list[dict[str, Any]]:
    return [
        *({"service": {"account": CORE, "subject": subject}} for subject in services),
        *({"stream": {"account": CORE, "subject": subject}} for subject in streams),
    ]


def agent_users(joined: Mapping[str, str]) -> list[dict[str, Any]]:
    """The users of agents on other machines, given their public keys by id."""
    return [
        {"nkey": public_key, "permissions": permissions("agent", agent_id)}
        for agent_id, public_key in sorted(joined.items())
    ]
