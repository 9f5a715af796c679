"""Reads a registered dataset's stored bytes again as a whole, and states what they hold."""

import asyncio
import errno
import hashlib
from collections.abc import Iterable

from domain.datasets.commands import RecordValidation
from domain.datasets.conversation_report import ConversationReportBuilder
from domain.datasets.conversations import Conversation
from domain.datasets.events import DatasetRegistered
from domain.datasets.preferences import PreferencePair, RatedCompletion
from domain.datasets.report import ReportBuilder
from domain.datasets.rows import RowReader, TableRow
from domain.datasets.shapes import AnyRow
from domain.datasets.table_report import TableReportBuilder
from handlers.ports import Blobs


async def validate(dataset: DatasetRegistered, blobs: Blobs) -> RecordValidation:
    """Judge the bytes that the event names.

    Raises:
        OSError: They cannot be read now, which says nothing about them.
    """
    reading = _Reading(dataset)
    try:
        async for chunk in blobs.read(dataset.blob.sha256):
            await asyncio.to_thread(reading.feed, chunk)
    except FileNotFoundError:
        return _refused(dataset, "blob_missing", "the stored bytes are gone")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        # The store's word for bytes that are not those it was given: no later read mends them.
        return _refused(dataset, "blob_damaged", "the stored bytes are not the uploaded ones")
    return await asyncio.to_thread(reading.verdict)


class _Reading:
    """Hash and parser over the same chunks; used by one thread at a time."""

    def __init__(self, dataset: DatasetRegistered) -> None:
        self._dataset = dataset
        self._hash = hashlib.sha256()
        self._texts = ReportBuilder()
        self._conversations = ConversationReportBuilder()
        self._table = TableReportBuilder()
        self._reader = RowReader(
            dataset.format,
            dataset.text_column,
            dataset.label_column,
            dataset.delimiter,
            kind=dataset.kind,
            table=dataset.table,
        )

    def feed(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._count(self._reader.take(chunk))

    def verdict(self) -> RecordValidation:
        self._count(self._reader.rest())
        dataset, reader = self._dataset, self._reader
        if self._hash.hexdigest() != dataset.blob.sha256:
            return _refused(dataset, "blob_damaged", "the stored bytes are not the uploaded ones")
        if reader.problem_count:
            first = reader.problems[0]
            return _refused(dataset, first.code, f"line {first.line}: {first.message}")
        if (reader.row_count, reader.labels) != (dataset.rows, dataset.labels):
            return _refused(
                dataset, "content_differs", "the rows or labels are not those of the upload"
            )
        if dataset.kind == "tabular":
            return self._tabular()
        return self._labelled() if dataset.kind == "classification" else self._chats()

    def _count(self, rows: Iterable[AnyRow]) -> None:
        for row in rows:
            if isinstance(row, Conversation):
                self._conversations.add(row)
            elif isinstance(row, PreferencePair | RatedCompletion):
                self._conversations.add_answers(row)
            elif isinstance(row, TableRow):
                self._table.add(row)
            else:
                self._texts.add(row)

    def _tabular(self) -> RecordValidation:
        cleanings, report = self._reader.cleanings, self._table
        if cleanings is None:
            raise RuntimeError("a table is read by its schema, which notes what it cleans")
        return RecordValidation(
            dataset_id=self._dataset.dataset_id,
            duplicate_rows=report.duplicate_rows,
            conflicting_texts=report.conflicting_inputs,
            table=report.build(cleanings),
        )

    def _labelled(self) -> RecordValidation:
        report = self._texts.build(self._reader)
        if report is None:
            raise RuntimeError("a file without problems has rows with two columns")
        return RecordValidation(
            dataset_id=self._dataset.dataset_id,
            duplicate_rows=report.duplicate_rows,
            conflicting_texts=report.conflicting_texts,
            longest_text_chars=report.longest_text_chars,
            mean_text_chars=report.mean_text_chars,
        )

    def _chats(self) -> RecordValidation:
        report = self._conversations
        return RecordValidation(
            dataset_id=self._dataset.dataset_id,
            duplicate_rows=report.duplicate_rows,
            conflicting_texts=report.conflicting_prompts,
            longest_text_chars=report.longest_chars,
            mean_text_chars=report.mean_chars,
            messages=report.messages,
            supervised_messages=report.supervised_messages,
            example=report.example,
        )


def _refused(dataset: DatasetRegistered, code: str, message: str) -> RecordValidation:
    return RecordValidation(dataset_id=dataset.dataset_id, problem_code=code, problem=message)
