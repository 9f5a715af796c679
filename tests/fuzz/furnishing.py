"""What a stack is given before it is asked, so that ids, names and links can be met."""

import hashlib
import json
import time
from typing import Any, Final

from gateway.tickets import Ticket, Tickets, ticket_key
from tests.e2e.harness import ROOT, Stack
from tests.fuzz.leaks import secrets_of_stack

ROLES: Final = ("viewer", "editor", "admin")
NO_BYTES: Final = hashlib.sha256(b"").hexdigest()
TINY: Final = b"text,label\n" + b"".join(b"row %d,%d\n" % (n, n % 2) for n in range(40))
TINY_CHAT: Final = b"".join(
    b'{"messages": [{"role": "user", "content": "%d?"}, {"role": "assistant", "content": "%d!"}]}\n'
    % (n, n)
    for n in range(20)
)


def furnish(stack: Stack) -> dict[str, Any]:
    """Give the stack a version in service, an evaluation, links and keys, so that ids can be met."""
    dataset = stack.upload((ROOT / "examples" / "intents.csv").read_bytes())
    tiny, chat = stack.upload(TINY), stack.upload(TINY_CHAT, "chats.jsonl")
    job = {"model": "intents", "dataset_id": dataset["id"]}
    training = {"hyperparameters": {"epochs": 1, "max_length": 32}}
    job = stack.post("/jobs", job | training)
    evaluation = stack.evaluation_until_done(str(job["id"]))
    stack.post("/models/intents/activate", {"version": 1})
    talking = {"model": "chats", "dataset_id": chat["id"], "method": "sft"}
    talk = stack.post("/jobs", talking | {"base_model": "finetrail/tiny", "hyperparameters": {"epochs": 1}})  # fmt: skip
    stack.evaluation_until_done(str(talk["id"]))
    stack.post("/models/chats/activate", {"version": 1})
    links = [
        stack.post("/models/intents/versions/1/links", {"minutes": 600}),
        stack.post(f"/datasets/{dataset['id']}/links", {"minutes": 600}),
    ]
    secrets = json.loads((stack.folder / "secrets.json").read_text())
    brought = Ticket("PUT", NO_BYTES, int(time.time()) + 36_000, size=0)
    bring = Tickets(ticket_key(secrets["api_key_pepper"].encode())).issue(brought)
    issued = {role: stack.post("/keys", {"name": f"fuzz {role}", "role": role}) for role in ROLES}
    keys = {role: str(one["secret"]) for role, one in issued.items()} | {"the tests": stack.key}
    invited = stack.post("/agents/join-tokens", {"name": "never comes", "minutes": 600})
    tickets = [link["url"].rpartition("/")[2] for link in links]
    return {
        "keys": keys,
        "secrets": {
            **secrets_of_stack(stack.folder, keys | {"a machine that joins": invited["token"]}),
            **{f"link {number}": ticket for number, ticket in enumerate(tickets)},
        },
        "key_ids": [key.split("_")[1].lower() for key in keys.values()],
        "agents": [str(a["id"]) for a in stack.get("/agents")["items"] if a["connected"]],
        "datasets": [dataset["id"], tiny["id"]],
        "real": {
            "dataset_id": [dataset["id"], tiny["id"], chat["id"]],
            "job_id": [job["id"], talk["id"]],
            "evaluation_id": [evaluation["id"]],
            "agent_id": [invited["agent_id"]],
            "name": ["intents", "chats"],
            "model_id": ["intents", "chats", "intents:1"],
            "number": ["1"],
            "path": ["README.md", "metrics.json", "lora_adapters/adapter_model.safetensors"],
            "ticket": [*tickets, bring],
            "type": ["JobSubmitted", "LinkIssued"],
            "file": ["1.json"],
        },
    }
