"""How the queue is shown: works, the policy, and what a replay found."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.queues.ranking import gigabytes
from domain.queues.replay import Checked, Story
from finetrail.render import Table, facts, moment


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


def stories(found: Sequence[Story]) -> Table:
    """In the order in which the other policy would have started them, and what users would wait."""
    never = datetime.max.replace(tzinfo=UTC)
    ordered = sorted(found, key=lambda story: story.would_start_at or never)
    actual = sorted(found, key=lambda story: story.started_at or never)
    place = {id(story): str(n) for n, story in enumerate(actual, 1) if story.started_at}
    rows = [
        (
            str(n) if story.would_start_at else "",
            place.get(id(story), ""),
            str(story.queued.work_id),
            story.queued.user,
            str(story.queued.priority),
            _seconds(story.would_wait_s),
            _seconds(story.waited_s),
        )
        for n, story in enumerate(ordered, 1)
    ]
    headings = ("would be", "was", "work", "user", "priority", "would wait", "waited")
    return Table(headings, rows, empty="Nothing was ever queued.", note=_by_user(found))


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


def _mean(seconds: Sequence[float]) -> str:
    return _seconds(sum(seconds) / len(seconds)) if seconds else "–"


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))
