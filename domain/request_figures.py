"""What the requests to one route came to: what a gateway counts and a store keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RequestFigures:
    """Requests to one route with one class of status, in a minute or a longer step."""

    time: datetime  # when it begins
    method: str
    route: str
    status: str  # 2xx, …
    count: int
    seconds: float  # all together
    slowest_s: float
    buckets: Sequence[int]  # how many took up to each bound, and longer than all
