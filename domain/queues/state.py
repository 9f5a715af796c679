"""What the queue knows: live work alone, and of what is over no more than bounded sums."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from domain.placement import DEFAULT_POOL, DEFAULT_PRIORITY
from domain.queues.events import WorkKind
from domain.queues.policy import BUILT_IN, QueuePolicy

START: Final = 1000  # what one start counts; whole numbers, so that every machine sums alike

Line = tuple[str, int, WorkKind, str, str | None, str | None, int | None]


@dataclass(frozen=True, slots=True)
class Work:
    """A training or an evaluation, waiting or assigned."""

    work_id: UUID
    kind: WorkKind
    method: str
    attempt: int
    user: str = ""
    priority: int = DEFAULT_PRIORITY
    pool: str | None = None
    accelerator: str | None = None  # what it needs; see `domain.placement.Needs`
    memory_bytes: int | None = None
    place: int = 0  # the order of first arrival, which later attempts keep
    starts: int = 0  # how many works had been started by then

    @property
    def line(self) -> Line:
        """Works of one line differ in nothing that decides but their arrival."""
        wanted = self.method, self.pool, self.accelerator, self.memory_bytes
        return self.user, self.priority, self.kind, *wanted


@dataclass(frozen=True, slots=True)
class Assigned:
    work: Work
    agent_id: str

    @property
    def work_id(self) -> UUID:
        return self.work.work_id

    @property
    def kind(self) -> WorkKind:
        return self.work.kind

    @property
    def attempt(self) -> int:
        return self.work.attempt


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it described itself when it last offered its slots."""

    agent_id: str
    name: str
    slots: int
    methods: tuple[str, ...]
    pool: str = DEFAULT_POOL
    accelerator: str = "cpu"
    memory_bytes: int = 0
    away: str | None = None  # why nothing is given to it


@dataclass(frozen=True, slots=True)
class Recent:
    """What a user has started of late: what it came to in an epoch, to be halved once for each since."""

    sum: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What decisions depend on beside the work itself."""

    policy: QueuePolicy = BUILT_IN
    number: int = 0  # of the policy; 0 is the built-in one
    starts: int = 0  # works started, ever
    epoch: int = 0  # how often recent starts were halved
    since: int = 0  # starts since they last were
    recent: Mapping[str, Recent] = field(default_factory=dict)  # of those who started any of late
    agents: Mapping[str, Agent] = field(default_factory=dict)  # known ones, away or not

    def recently(self, user: str) -> int:
        """Thousandths of starts, the older ones halved again and again."""
        recent = self.recent.get(user)
        return recent.sum >> (self.epoch - recent.epoch) if recent else 0

    def started(self, user: str) -> "Ledger":
        """After one more start; every so many of them all that was counted is halved."""
        charged = {**self.recent, user: Recent(self.recently(user) + START, self.epoch)}
        starts, since, epoch = self.starts + 1, self.since + 1, self.epoch
        if since >= self.policy.memory:
            since, epoch = 0, epoch + 1
            charged = {name: one for name, one in charged.items() if one.sum >> (epoch - one.epoch)}
        # Not `replace`: this is done for every start there ever was whenever a log is read.
        return Ledger(self.policy, self.number, starts, epoch, since, charged, self.agents)


@dataclass(frozen=True, slots=True)
class Queue:
    waiting: Mapping[UUID, Work] = field(default_factory=dict)
    assigned: Mapping[UUID, Assigned] = field(default_factory=dict)
    arrivals: int = 0
    ledger: Ledger = Ledger()

    def find(self, work_id: UUID) -> Work | None:
        held = self.assigned.get(work_id)
        return held.work if held else self.waiting.get(work_id)

    def running(self) -> Counter[str]:
        """How many works each user has on agents."""
        return Counter(held.work.user for held in self.assigned.values())

    def free(self) -> dict[str, int]:
        """Free slots of those agents that are there and have any."""
        held = Counter(one.agent_id for one in self.assigned.values())
        left = {
            agent.agent_id: agent.slots - held[agent.agent_id]
            for agent in self.ledger.agents.values()
            if agent.away is None
        }
        return {agent_id: slots for agent_id, slots in left.items() if slots > 0}
