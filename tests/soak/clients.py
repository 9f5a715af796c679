"""What users do at the same time, again and again; each request is repeated until somebody answers it."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import httpx
from typing_extensions import override

from finetrail.rebuilding import rebuild
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.stack.state import resolve_settings
from projections.projection import registry, step_metrics
from tests.crash.load import AWAY, REPEAT_S, REQUEST_S, Client, Load, upload

VIEWS: Final = tuple(view.name for one in (registry, step_metrics) for view in one.views)
REBUILD_PAUSE_S: Final = 8.0
STREAM_S: Final = httpx.Timeout(5, read=15)


class User(Client):
    """A client with its own dice, that counts what it has done."""

    pause_s = 0.3

    def __init__(self, load: Load, tag: str) -> None:
        super().__init__(load)
        self._tag = f"{type(self).__name__.lower()}-{tag}"
        self.chance = random.Random(self._tag)
        self.done: Counter[str] = Counter()

    @override
    def act(self, number: int) -> None:
        self.use(f"{self._tag}-{number}")
        self._load.stopped.wait(self.pause_s * self.chance.uniform(0.5, 1.5))

    def use(self, name: str) -> None:
        raise NotImplementedError

    def ask(self, method: str, path: str, key: str, **request: Any) -> httpx.Response | None:
        """The answer, whatever it says; None when the load is stopped first."""
        while not self._load.stopped.is_set():
            with suppress(*AWAY):
                answer = httpx.request(
                    method,
                    f"{self._load.stack.url}/api/v1{path}",
                    headers={**self._load.authorization, "Idempotency-Key": key},
                    timeout=REQUEST_S,
                    trust_env=False,
                    **request,
                )
                if answer.status_code < 500:
                    self.done[f"{answer.status_code}"] += 1
                    return answer
            self._load.stopped.wait(REPEAT_S)
        return None

    def look(self, path: str) -> Any:
        """One answer, or None."""
        try:
            answer = httpx.get(
                f"{self._load.stack.url}/api/v1{path}",
                headers=self._load.authorization,
                timeout=REQUEST_S,
                trust_env=False,
            )
        except AWAY:
            self.done["unanswered"] += 1
            return None
        self.done[f"{answer.status_code}"] += 1
        assert answer.status_code != 400, answer.text
        return answer.json() if answer.is_success else None

    def listen(self, path: str, seconds: float) -> Iterator[str]:
        """Lines of a stream, until it was read so long; then it is broken off."""
        until = time.monotonic() + seconds
        with (
            suppress(*AWAY),
            httpx.Client(timeout=httpx.Timeout(5, read=seconds), trust_env=False) as client,
            client.stream(
                "GET",
                f"{self._load.stack.url}/api/v1{path}",
                headers={**self._load.authorization, "Accept": "text/event-stream"},
            ) as answer,
        ):
            if answer.is_success:
                self.done["streams"] += 1
                for line in answer.iter_lines():
                    yield line
                    if time.monotonic() > until or self._load.stopped.is_set():
                        return


class Cancels(User):
    """Submits jobs, watches each over SSE for a while, and cancels it."""

    pause_s = 4.0

    def __init__(self, load: Load, tag: str, dataset_id: str, training: dict[str, Any]) -> None:
        super().__init__(load, tag)
        self.jobs: list[str] = []
        self._body = {"model": "cancelled", "dataset_id": dataset_id, "hyperparameters": training}

    @override
    def use(self, name: str) -> None:
        submitted = self._load.post("/jobs", name, json=self._body)
        if not submitted:
            return
        job_id = submitted["id"]
        self._load.note("JobSubmitted", job_id)
        self.jobs.append(job_id)
        for _ in self.listen(f"/jobs/{job_id}/events", self.chance.uniform(0.5, 8.0)):
            pass
        cancelled = self.ask("POST", f"/jobs/{job_id}/cancel", f"{name}-cancel")
        assert cancelled is None or cancelled.status_code in {202, 404, 409}, cancelled.text


class Watchers(User):
    """Opens streams of every kind and breaks them off."""

    pause_s = 0.2

    @override
    def use(self, name: str) -> None:
        found = self.look("/jobs?limit=5") or {"items": []}
        paths = ["/events?aggregate=job", "/events?after=0"]
        for job in found["items"]:
            paths += [f"/jobs/{job['id']}/events", f"/jobs/{job['id']}/logs"]
        for _ in self.listen(self.chance.choice(paths), self.chance.uniform(0.1, 2.0)):
            pass


class Pasts(User):
    """Asks what was, and why."""

    pause_s = 0.15

    @override
    def use(self, name: str) -> None:
        newest = self.look("/events?limit=1")
        if not newest:
            return
        last = newest["items"][0]["sequence"]
        point, other = sorted((self.chance.randint(1, last), self.chance.randint(1, last)))
        for path in (
            f"/webhooks?as_of={point}",
            f"/datasets?as_of={point}",
            f"/models?as_of={other}",
            f"/keys?as_of={other}",
            f"/events/diff?from={point}&to={other}",
            f"/events/{other}/why",
        ):
            self.look(path)
        for job in (self.look("/jobs?limit=2") or {"items": []})["items"]:
            self.look(f"/jobs/{job['id']}?as_of={other}")


class Datasets(User):
    """Uploads, reads back by a link, and deletes; sometimes an upload breaks off."""

    @override
    def use(self, name: str) -> None:
        if self.chance.random() < 0.2:
            self._break_off(name)
        made = upload(self._load, name)
        if not made:
            return
        self._load.note("DatasetRegistered", name)
        self.look(f"/datasets/{made['id']}/rows")
        link = self.ask("POST", f"/datasets/{made['id']}/links", f"{name}-link", json={})
        if link is not None and link.is_success:
            with suppress(*AWAY):
                httpx.get(link.json()["url"], timeout=REQUEST_S, trust_env=False)
        self.ask("DELETE", f"/datasets/{made['id']}", f"{name}-delete")

    def _break_off(self, name: str) -> None:
        def body() -> Iterator[bytes]:
            yield b"text,label\n" + b"a row,yes\n" * 5000
            raise ConnectionResetError

        with suppress(*AWAY, ConnectionResetError):
            httpx.post(
                f"{self._load.stack.url}/api/v1/datasets",
                params={"filename": f"{name}-broken.csv"},
                headers=self._load.authorization,
                content=body(),
                timeout=REQUEST_S,
                trust_env=False,
            )
        self.done["uploads broken off"] += 1


class KeyChanges(User):
    """Issues keys, uses and revokes them. Seldom: they stand in one stream, which decisions load."""

    pause_s = 3.0

    @override
    def use(self, name: str) -> None:
        issued = self._load.post("/keys", name, json={"name": name, "role": "viewer"})
        if not issued:
            return
        self._load.note("KeyIssued", name)
        with suppress(*AWAY):
            httpx.get(
                f"{self._load.stack.url}/api/v1/jobs",
                headers={"Authorization": f"Bearer {issued['secret']}"},
                timeout=REQUEST_S,
                trust_env=False,
            )
        self.ask("DELETE", f"/keys/{issued['key_id']}", f"{name}-revoke")


class Downloads(User):
    """Downloads versions as ZIP files, whole and broken off, and asks the model."""

    pause_s = 0.5

    @override
    def use(self, name: str) -> None:
        versions = (self.look("/models/crash/versions?limit=3") or {"items": []})["items"]
        if not versions:
            return
        number = self.chance.choice(versions)["number"]
        whole = self.chance.random() < 0.5
        with (
            suppress(*AWAY),
            httpx.Client(timeout=STREAM_S, trust_env=False) as client,
            client.stream(
                "GET",
                f"{self._load.stack.url}/api/v1/models/crash/versions/{number}/download",
                headers=self._load.authorization,
            ) as answer,
        ):
            for _ in answer.iter_bytes(65536) if answer.is_success else ():
                if not whole:
                    break
            self.done["downloads"] += answer.is_success
        with suppress(*AWAY):
            httpx.post(
                f"{self._load.stack.url}/api/v1/models/crash/predict",
                headers=self._load.authorization,
                json={"texts": ["where is my parcel"], "version": number},
                timeout=REQUEST_S,
                trust_env=False,
            )


class Rebuilds(User):
    """Has one view filled anew, and now and then all of them."""

    pause_s = REBUILD_PAUSE_S

    @override
    def use(self, name: str) -> None:
        view = None if self.chance.random() < 0.25 else self.chance.choice(VIEWS)
        try:
            asyncio.run(self._rebuild(resolve_settings(Settings()), view))
        except (StackError, ValueError, json.JSONDecodeError):  # it goes on by itself
            self.done["cut off"] += 1

    async def _rebuild(self, settings: Settings, view: str | None) -> None:
        async for progress in rebuild(settings, view):
            if all(one.ended for one in progress):
                self.done["all views" if view is None else "one view"] += 1
                for one in progress:
                    self.done[one.status] += 1
                    assert not one.differences, f"{one.views} differed: {one.differences}"
            if self._load.stopped.is_set():
                return
