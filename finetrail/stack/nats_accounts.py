"""Two accounts of a NATS server: the log with those who keep it, and the agents, who reach little of it.

Permissions alone do not keep agents apart from the log: whatever an agent may ask the server, it may
ask with any reply subject, and the server itself, which may do everything, answers there. One
acknowledgement with the reply ``events.…`` would be an event that nobody can read. Replies do not
leave an account, so an agent's end where nothing listens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from finetrail.stack.nats_server import permissions

CORE: Final = "CORE"
AGENTS: Final = "AGENTS"

# What agents ask or tell, each within its permissions.
_TO_CORE: Final = (
    "commands.>",
    "telemetry.>",
    "presence.*",
    "serving.*",
    "tickets.*.*",
    "$JS.API.CONSUMER.INFO.WORK.*",
    "$JS.ACK.WORK.>",
    "_INBOX_gateway.>",  # answers to requests; an agent may publish none that it was not asked for
)
_TO_CORE_ANSWERED_OFTEN: Final = ("$JS.API.CONSUMER.MSG.NEXT.WORK.*",)
_TO_AGENTS: Final = ("_INBOX_agent.>", "infer.>", "control.>")


def accounts(
    core: Sequence[Mapping[str, Any]], agents: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The ``accounts`` of a server's configuration with these users."""
    services = (*_TO_CORE, *_TO_CORE_ANSWERED_OFTEN)
    exports = [
        *({"service": subject} for subject in _TO_CORE),
        *({"service": subject, "response_type": "Stream"} for subject in _TO_CORE_ANSWERED_OFTEN),
        *({"stream": subject} for subject in _TO_AGENTS),
    ]
    imports = [
        *({"service": {"account": CORE, "subject": subject}} for subject in services),
        *({"stream": {"account": CORE, "subject": subject}} for subject in _TO_AGENTS),
    ]
    return {
        CORE: {"jetstream": "enabled", "users": list(core), "exports": exports},
        AGENTS: {"users": list(agents), "imports": imports},
    }


def agent_users(joined: Mapping[str, str]) -> list[dict[str, Any]]:
    """The users of agents on other machines, given their public keys by id."""
    return [
        {"nkey": public_key, "permissions": permissions("agent", agent_id)}
        for agent_id, public_key in sorted(joined.items())
    ]
