"""Uploaded data."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetrail.client.calls import Calls, Point, part, point, without_none
from finetrail.client.downloads import check_hash, download
from finetrail.client.files import Report, content_type, pieces
from finetrail.client.models import Dataset, Link
from finetrail.client.transport import API, json_object

Columns = str | Sequence[str] | None  # of a table: names parted by commas, or a list of them


class DatasetCalls(Calls):
    def upload_dataset(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        format: str | None = None,  # noqa: A002 - the API's own word
        kind: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        person_id: str | None = None,
        schema: str | None = None,
        target: str | None = None,
        numeric: Columns = None,
        categorical: Columns = None,
        group: Columns = None,
        ignored: Columns = None,
        on_progress: Report | None = None,
    ) -> Dataset:
        """Stream a file to the server and return the dataset it made of it.

        Args:
            path: CSV, JSON Lines, JSON, Parquet or plain text, each also packed with gzip.
            name: The file's own name without its ending, if none is given.
            format: csv, jsonl, json, parquet or text; told by the file if none is given.
            kind: classification, chat, instruction, prompt_completion, text, preference, kto or
                tabular; told by the first row if none is given, but a chosen column then means a
                classification, and what follows a table.
            schema: Of a table: the name of a schema that the server knows, such as diabetes.
            target: Of a table: the column to tell.
            numeric: Of a table: columns of numbers, in a list or parted by commas; likewise
                ``categorical``, ``group`` (equal values keep rows together) and ``ignored``. What is
                not named is told by what stands in it.
            person_id: Whom all the rows are of; they are deleted when that person is forgotten.
            on_progress: Called with bytes sent and bytes in all.

        Raises:
            Invalid: The file was refused; ``line_problems`` says where and why.
        """
        file = Path(path)
        size = file.stat().st_size
        response = self._transport.call(
            "POST",
            f"{API}/datasets",
            params={
                "name": name or file.stem,
                "filename": file.name,
                "format": format,
                "kind": kind,
                "text_column": text_column,
                "label_column": label_column,
                "person_id": person_id,
                "schema": schema,
                "target": target,
                "numeric": _names(numeric),
                "categorical": _names(categorical),
                "group": _names(group),
                "ignored": _names(ignored),
            },
            body=lambda: pieces(file, size, on_progress),
            headers={"Content-Type": content_type(file), "Content-Length": str(size)},
        )
        return Dataset.model_validate(json_object(response))

    def datasets(self, *, limit: int | None = None, as_of: Point | None = None) -> list[Dataset]:
        found = self._pages("/datasets", limit, as_of=point(as_of))
        return [Dataset.model_validate(each) for each in found]

    def dataset(self, dataset_id: str, *, as_of: Point | None = None) -> Dataset:
        return Dataset.model_validate(
            self._get(f"/datasets/{part(dataset_id)}", as_of=point(as_of))
        )

    def dataset_rows(self, dataset_id: str, *, limit: int = 20) -> list[dict[str, Any]]:
        """The first rows as the server reads them."""
        return self._list(f"/datasets/{part(dataset_id)}/rows", limit=limit)

    def download_dataset(
        self, dataset_id: str, to: str | Path, *, on_progress: Report | None = None
    ) -> Path:
        """Save the file as it was uploaded; ``to`` appears when it is whole and its hash holds.

        A download that broke off goes on where it was, also in a later process.
        """
        url = f"{API}/datasets/{part(dataset_id)}/content"
        download(self._transport, url, Path(to), check_hash, on_progress)
        return Path(to)

    def link_dataset(self, dataset_id: str, *, minutes: int | None = None) -> Link:
        """A link to the file that works without a key."""
        asked = without_none({"minutes": minutes})
        return Link.model_validate(self._post(f"/datasets/{part(dataset_id)}/links", asked))

    def delete_dataset(self, dataset_id: str) -> None:
        self._delete(f"/datasets/{part(dataset_id)}")


def _names(columns: Columns) -> str | None:
    """As one line of CSV, so that a name may hold a comma."""
    if columns is None or isinstance(columns, str):
        return columns
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(columns)
    return line.getvalue()
