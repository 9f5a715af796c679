"""How the queue is shown: works, the policy, and what a replay found."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.queues.ranking import gigabytes
from domain.queues.replay import Checked, Story
from finetrail.render import Table, facts, moment

NEVER = datetime.max.replace(tzinfo=UTC)


def works(found: list[dict[str, Any]]) -> Table:
    rows = [
        (
            str(each["position"] or ""),
            each["work_id"],
            each["kind"],
            each["user"],
            str(each["priority"]),
            _wanted(each),
            *_standing(each),
        )
        for each in found
    ]
    headings = ("", "work", "kind", "user", "priority", "wants", "starts", "why")
    return Table(headings, rows, empty="Nothing waits and nothing is assigned.")


def waiting(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts for the table of one job."""
    guess = told.get("estimated_start")
    start = _about(guess) if guess else f"not known: {told.get('estimate') or ''}"
    return [
        ("position", str(told["position"])),
        ("waits", told["reason"]),
        ("may start", start),
    ]


def policy(found: dict[str, Any]) -> Table:
    set_by = (
        f"{found['set_by']}, {moment(_time(found['set_at']))}" if found["set_by"] else "built in"
    )
    users = [(user, _share(share)) for user, share in sorted(found["users"].items())]
    return facts(
        [
            ("policy", f"{found['number']} ({set_by})"),
            ("patience", f"{found['patience']} starts, then a work goes first"),
            ("memory", f"{found['memory']} starts, then each counts half"),
            (
                "evaluations",
                "before trainings of their priority"
                if found["evaluations_first"]
                else "as trainings",
            ),
            ("everyone", _share(found["everyone"])),
            *users,
        ]
    )


def checked(found: Checked) -> Table:
    rows = [
        (
            str(each.sequence),
            str(each.recorded.work_id),
            str(each.decided.work_id) if each.decided else "none",
        )
        for each in found.differences
    ]
    older = f", {found.older} of them made before inputs were recorded" if found.older else ""
    same = (
        "all as rules and inputs say"
        if not rows
        else f"{len(rows)} are not what rules and inputs say"
    )
    return Table(
        ("sequence", "recorded", "by the rules"),
        rows,
        empty=f"{found.decisions} decisions{older}: {same}.",
    )


def checked_json(found: Checked) -> dict[str, Any]:
    differences = [
        {
            "sequence": each.sequence,
            "recorded": each.recorded.model_dump(mode="json"),
            "decided": each.decided and each.decided.model_dump(mode="json"),
        }
        for each in found.differences
    ]
    return {"decisions": found.decisions, "older": found.older, "differences": differences}


def stories(found: Sequence[Story]) -> Table:
    """In the order in which the other policy would have started them, and what users would wait."""
    actual = sorted((story for story in found if story.started_at), key=_started)
    place = {story.queued.work_id: str(n) for n, story in enumerate(actual, 1)}
    rows = [
        (
            str(n) if story.would_start_at else "",
            place.get(story.queued.work_id, ""),
            str(story.queued.work_id),
            story.queued.user,
            str(story.queued.priority),
            _seconds(story.would_wait_s),
            _seconds(story.waited_s),
        )
        for n, story in enumerate(sorted(found, key=_would_start), 1)
    ]
    headings = ("would be", "was", "work", "user", "priority", "would wait", "waited")
    return Table(headings, rows, empty="Nothing was ever queued.", note=_by_user(found))


def stories_json(found: Sequence[Story]) -> list[dict[str, Any]]:
    return [
        {
            "work_id": str(story.queued.work_id),
            "kind": story.queued.kind,
            "user": story.queued.user,
            "priority": story.queued.priority,
            "queued_at": _iso(story.queued_at),
            "started_at": _iso(story.started_at),
            "would_start_at": _iso(story.would_start_at),
            "waited_s": story.waited_s,
            "would_wait_s": story.would_wait_s,
        }
        for story in sorted(found, key=_would_start)
    ]


def _by_user(found: Sequence[Story]) -> str:
    lines = []
    for user in sorted({story.queued.user for story in found}):
        theirs = [story for story in found if story.queued.user == user]
        would = [story.would_wait_s for story in theirs if story.would_wait_s is not None]
        did = [story.waited_s for story in theirs if story.waited_s is not None]
        lines.append(
            f"{user or 'unknown'}: would wait {_mean(would)} on average, waited {_mean(did)}"
        )
    return "\n".join(lines)


def _standing(each: dict[str, Any]) -> tuple[str, str]:
    told = each["waiting"]
    if told is None:
        return "started" if each["status"] == "assigned" else "", each["reason"] or ""
    return _about(told["estimated_start"]) if told["estimated_start"] else "?", told["reason"]


def _wanted(each: dict[str, Any]) -> str:
    needs = each["needs"]
    memory = needs["memory_bytes"]
    parts = (each["pool"], needs["accelerator"], gigabytes(memory) if memory else None)
    return ", ".join(part for part in parts if part)


def _share(share: dict[str, Any]) -> str:
    limits = [
        f"at most {share[name]} {name}" for name in ("running", "queued") if share[name] is not None
    ]
    return ", ".join((f"weight {share['weight']}", *limits))


def _about(text: str) -> str:
    """A guess, to the second."""
    return f"about {moment(_time(text))}"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _would_start(story: Story) -> datetime:
    return story.would_start_at or NEVER


def _started(story: Story) -> datetime:
    return story.started_at or NEVER


def _mean(seconds: Sequence[float]) -> str:
    return _seconds(sum(seconds) / len(seconds)) if seconds else "–"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))
