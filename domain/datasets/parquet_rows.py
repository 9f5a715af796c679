"""Parquet to rows, one group of rows after the other; a row stands for its line in what is said of it."""

import tempfile
import weakref
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from domain.datasets.problems import Problems, shown
from domain.datasets.shapes import AnyRow, Shapes
from domain.datasets.values import Number

ROWS_AT_ONCE: Final = 256
MAX_GROUP_BYTES: Final = 1024**3  # of a group as its index says; a reader may hold it at once
# Equal values are stored once and unpack a thousandfold, as gzip does; see ``unpacking``.
MAX_UNPACKED_BYTES: Final = 4 * 1024**3
MAX_RATIO: Final = 200
RATIO_FROM_BYTES: Final = 16 * 1024 * 1024
_WHOLE: Final = "a whole Parquet file"


class ParquetRows:
    """Puts the bytes aside, in a file that nobody else sees, until all are there."""

    delimiter = None
    byte_order_mark = False

    def __init__(self, shapes: Shapes, problems: Problems) -> None:
        self._shapes = shapes
        self._problems = problems
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        weakref.finalize(self, self._file.close)  # also where an upload breaks off
        self._size = 0

    def feed(self, data: bytes) -> Iterator[AnyRow]:
        self._file.write(data)
        self._size += len(data)
        yield from ()

    def finish(self) -> Iterator[AnyRow]:
        # It takes longer to load than most files take to read, and most are none of these.
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        row = 0
        self._file.seek(0)
        try:
            with pq.ParquetFile(self._file, buffer_size=1 << 20) as file:
                if not self._may_be_read(file):
                    return
                unpacked = 0
                for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                    unpacked += batch.nbytes
                    if self._is_bomb(unpacked, row + 1):
                        return
                    for values in batch.to_pylist():
                        row += 1
                        found = self._shapes.take(row, _as_json(values))
                        if self._problems.stopped():
                            return
                        if found is not None:
                            yield found
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            first = str(error).partition("\n")[0][:200]
            self._problems.stop(row + 1, "bad_parquet", f"it cannot be read: {first}", _WHOLE)

    def _may_be_read(self, file: Any) -> bool:
        """Look at the index before anything is unpacked; the columns are told by it."""
        index = file.metadata
        sizes = [index.row_group(at).total_byte_size for at in range(index.num_row_groups)]
        if max(sizes, default=0) > MAX_GROUP_BYTES:
            self._problems.stop(
                1,
                "row_group_too_large",
                f"a group of rows has {max(sizes):,} bytes",
                f"groups of at most {MAX_GROUP_BYTES:,} bytes; write it with a smaller row_group_size",
            )
            return False
        names = file.schema_arrow.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            self._problems.stop(
                1,
                "duplicate_column",
                f"more than one column is called {shown(twice)}",
                "a different name for every column",
                field=twice,
            )
            return False
        self._shapes.begin(names, 1)
        return not self._problems.stopped()

    def _is_bomb(self, unpacked: int, row: int) -> bool:
        ratio = unpacked > RATIO_FROM_BYTES and unpacked > MAX_RATIO * self._size
        if not ratio and unpacked <= MAX_UNPACKED_BYTES:
            return False
        self._problems.stop(
            row,
            "unpacks_too_large",
            f"the file holds more than {unpacked:,} bytes of values in {self._size:,}",
            f"at most {MAX_UNPACKED_BYTES:,} bytes, and at most {MAX_RATIO} times the packed ones",
        )
        return True


def _as_json(value: Any) -> Any:
    """What a value would be in a row of JSON: numbers as they are spelled, no number as nothing."""
    match value:
        case None | bool() | str():
            return value
        case float():
            return Number(repr(value)) if value - value == 0 else None
        case int() | Decimal():
            return Number(value)
        case dict():
            return {key: _as_json(each) for key, each in value.items()}
        case list():
            return [_as_json(each) for each in value]
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case _:
            return str(value)
