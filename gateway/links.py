"""Links: leave to download for a while, recorded in the log before it is given out.

Where the blob store makes links of its own, a file is got from there; otherwise from here, with a
ticket in the path. A link cannot be taken back, and what it consists of is never written down.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Controller, HttpMethod, Request, Response, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.response import Stream

from domain.blobs import BlobRef
from domain.links.commands import IssueLink
from domain.links.events import LinkIssued, Resource
from domain.messages import StreamId
from domain.wire import decode_recorded
from gateway.authentication import Principal
from gateway.commanding import Caller, Commands, Done
from gateway.datasets import file_name, require_readable
from gateway.downloads import MEDIA_TYPE, archive_of
from gateway.ports import Blobs, Feed
from gateway.problems import Problem
from gateway.ranged import OCTETS, blob_content, ranged, require_blob
from gateway.registry import require_model, require_ready, require_version
from gateway.sealing import Sealing
from gateway.tickets import ArchiveTicket, Ticket, Tickets
from projections.queries import Queries

MAX_MINUTES: Final = 1440

Minutes = Annotated[
    int,
    msgspec.Meta(ge=1, le=MAX_MINUTES, description="How long; `gateway.link_minutes` if left out."),
]


class LinkBody(msgspec.Struct, forbid_unknown_fields=True):
    minutes: Minutes | None = None


class VersionLinkBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which file of the version, by its name in the ZIP; the ZIP itself if left out."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None
    minutes: Minutes | None = None


class IssuedLink(msgspec.Struct):
    """Good for whoever holds it, without a key. It is shown this once."""

    id: UUID
    url: str
    expires_at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class Linker:
    """Records links of one workspace and makes them."""

    tickets: Tickets
    commands: Commands
    blobs: Blobs
    feed: Feed
    sealing: Sealing
    workspace: str
    minutes: int
    public_url: str | None

    async def issue(
        self, caller: Caller, resource: Resource, id_: UUID, path: str | None, minutes: int | None
    ) -> tuple[LinkIssued, int]:
        """What the log says of the link, which a repeated request finds as it was; and where.

        Raises:
            Problem: It could not be recorded, so there is none.
        """
        lasting = timedelta(minutes=minutes or self.minutes)
        command = IssueLink(
            link_id=caller.resource_id,
            resource=resource,
            resource_id=id_,
            path=path,
            expires_at=datetime.now(UTC).replace(microsecond=0) + lasting,
        )
        done = await self.commands.send(caller, "link", command.link_id, command)
        return await self._recorded(command, done), done.sequence

    async def of_blob(
        self,
        issued: LinkIssued,
        sha256: str,
        filename: str,
        base: str,
        dataset_id: UUID | None = None,
    ) -> str:
        """Where the bytes are got; those of a person's dataset only through us, as long as it is there."""
        left = round((issued.expires_at - datetime.now(UTC)).total_seconds())
        if left <= 0:
            raise Problem("ticket_expired", "The link of this Idempotency-Key is past its time.")
        if dataset_id is None:
            own = await self.blobs.link(sha256, expires_s=left, filename=filename)
            if own is not None:
                return own
        ticket = Ticket("GET", sha256, _unix(issued), filename=filename, dataset_id=dataset_id)
        return f"{base}/blobs/{self.tickets.issue(ticket)}"

    def of_archive(self, issued: LinkIssued, model: str, number: int, base: str) -> str:
        ticket = ArchiveTicket(model, number, issued.resource_id, _unix(issued), issued.path)
        return f"{base}/archives/{self.tickets.issue_archive(ticket)}"

    def base(self, request: Request[Any, Any, Any]) -> str:
        url = self.public_url or str(request.base_url)
        return f"{url.rstrip('/')}/api/v1"

    async def _recorded(self, command: IssueLink, done: Done) -> LinkIssued:
        subject = StreamId(self.workspace, "link", command.link_id).subject
        message = await self.feed.last("EVENTS", subject) if done.sequence else None
        if message is None:
            raise Problem("log_unavailable", "The link was not recorded in time; ask again.")
        event = decode_recorded(
            message.subject, message.sequence, message.headers, message.data
        ).event
        if not isinstance(event, LinkIssued):
            raise TypeError(f"{type(event).__name__} in the stream of a link")
        return event


class LinksController(Controller):
    tags = ("links",)

    @post("/models/{name:str}/versions/{number:int}/links", status_code=201)
    async def of_version(
        self,
        request: Request[Principal, Any, Any],
        name: FromPath[str],
        number: FromPath[int],
        data: JSONBody[VersionLinkBody],
        caller: NamedDependency[Caller],
        linker: NamedDependency[Linker],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
    ) -> IssuedLink:
        """A link to the ZIP of a version, or to one file of it, that works without a key."""
        model = await require_model(queries, workspace, name)
        version = await require_version(queries, workspace, model, number)
        require_ready(version.row)
        archive = archive_of(version)
        if data.path is not None:
            archive.entry(data.path)
        issued, sequence = await linker.issue(
            caller, "model_version", version.row.id, data.path, data.minutes
        )
        base = linker.base(request)
        entry = archive.entry(issued.path) if issued.path is not None else None
        if entry is not None and isinstance(entry.content, BlobRef):
            filename = entry.path.rpartition("/")[2]
            url = await linker.of_blob(issued, entry.content.sha256, filename, base)
        else:
            url = linker.of_archive(issued, name, number, base)
        return IssuedLink(issued.link_id, url, issued.expires_at, sequence)

    @post("/datasets/{dataset_id:uuid}/links", status_code=201)
    async def of_dataset(
        self,
        request: Request[Principal, Any, Any],
        dataset_id: FromPath[UUID],
        data: JSONBody[LinkBody],
        caller: NamedDependency[Caller],
        linker: NamedDependency[Linker],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
    ) -> IssuedLink:
        """A link to the file of a dataset that works without a key."""
        row, opened = await require_readable(queries, linker.sealing, workspace, dataset_id)
        issued, sequence = await linker.issue(caller, "dataset", dataset_id, None, data.minutes)
        personal = None if row.person_id is None else dataset_id
        # A ticket can be read by whoever holds it: it does not tell what a person's dataset is called.
        filename = f"{dataset_id}.{row.format}" if personal else file_name(row, opened)
        url = await linker.of_blob(issued, row.sha256, filename, linker.base(request), personal)
        return IssuedLink(issued.link_id, url, issued.expires_at, sequence)

    @route("/blobs/{ticket:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], media_type=OCTETS)
    async def blob(
        self,
        request: Request[None, Any, Any],
        ticket: FromPath[str],
        linker: NamedDependency[Linker],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        blobs: NamedDependency[Blobs],
    ) -> Response[None] | Stream:
        """The bytes that a link to one file is for. No key is asked for: the ticket is enough."""
        leave = linker.tickets.read(ticket, _now())
        if leave.verb != "GET":
            raise Problem("ticket_invalid", "This ticket is for bringing bytes, not for getting.")
        if leave.dataset_id is not None:
            await require_readable(queries, linker.sealing, workspace, leave.dataset_id)
        size = await require_blob(blobs, leave.sha256)
        return ranged(request, blob_content(blobs, leave.sha256, size, leave.filename))

    @route(
        "/archives/{ticket:str}",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        media_type=MEDIA_TYPE,
    )
    async def archive(
        self,
        request: Request[None, Any, Any],
        ticket: FromPath[str],
        linker: NamedDependency[Linker],
        queries: NamedDependency[Queries],
        workspace: NamedDependency[str],
        blobs: NamedDependency[Blobs],
    ) -> Response[None] | Stream:
        """The ZIP that a link is for. No key is asked for: the ticket is enough."""
        leave = linker.tickets.read_archive(ticket, _now())
        model = await require_model(queries, workspace, leave.model)
        version = await require_version(queries, workspace, model, leave.number)
        if version.row.id != leave.version_id:
            raise Problem("not_found", "What this link was for is no more.")
        archive = archive_of(version)
        if leave.path is not None:
            return ranged(request, await archive.file(blobs, leave.path))
        return ranged(request, await archive.content(blobs))


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _unix(issued: LinkIssued) -> int:
    return int(issued.expires_at.timestamp())
