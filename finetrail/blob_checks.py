"""What `finetrail doctor` says about blobs: one line for the store, one for each that is damaged."""

import errno
from dataclasses import dataclass
from typing import Any

from finetrail.blob_care import DamagedBlob, check_blobs
from finetrail.blobs import open_blobs
from finetrail.doctor import Check
from finetrail.render import size
from finetrail.settings import Settings
from finetrail.stack.errors import StackError

RESTORE = "Restore it from a backup; what was made from it cannot be used or repeated without."
REACH = "Check FINETRAIL_BLOBS__S3__… and docs/how-to/use-s3.md."


@dataclass(frozen=True, slots=True)
class BlobCheck(Check):
    """A damaged blob, and the first events that refer to it."""

    sha256: str = ""
    damage: str = ""
    events: tuple[dict[str, Any], ...] = ()


async def check_bucket(settings: Settings) -> Check:
    """Whether the bucket can be listed; nothing is made."""
    s3 = settings.blobs.s3
    place = f"{s3.bucket} at {s3.endpoint}" if s3 else ""
    try:
        async with open_blobs(settings, make=False) as blobs:
            await anext(aiter(blobs.stored()), None)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return Check("blobs bucket", ok=True, detail=f"{place} (not there yet)")
        return Check("blobs bucket", ok=False, detail=f"{error.strerror}.", hint=REACH)
    return Check("blobs bucket", ok=True, detail=place)


async def check_all(settings: Settings) -> list[Check]:
    try:
        checked = await check_blobs(settings)
    except StackError as error:
        return [Check("blobs", ok=False, detail=error.message, hint=error.hint)]
    except OSError as error:
        return [Check("blobs", ok=False, detail=f"{error.strerror}.", hint=REACH)]
    amount = f"{checked.blobs} that events refer to ({size(checked.size)})"
    if not checked.damaged:
        return [Check("blobs", ok=True, detail=f"{amount}, all as the log says")]
    total = Check("blobs", ok=False, detail=f"{len(checked.damaged)} damaged of {amount}")
    return [total, *(_damaged(each) for each in checked.damaged)]


def _damaged(found: DamagedBlob) -> BlobCheck:
    what: str = found.damage
    if found.stored_size is not None and found.stored_size != found.blob.size:
        what = f"{what}: {found.stored_size:,} bytes instead of {found.blob.size:,}"
    named = "; ".join(str(reference) for reference in found.references)
    more = found.count - len(found.references)
    return BlobCheck(
        f"blob {found.blob.sha256}",
        ok=False,
        detail=f"{what} ({named}{f' and {more} more' if more else ''}).",
        hint=RESTORE,
        sha256=found.blob.sha256,
        damage=found.damage,
        events=tuple(
            {"sequence": each.sequence, "event": each.event, "subject": each.subject}
            | {"purpose": each.purpose}
            for each in found.references
        ),
    )
