"""Parquet and JSON-lines files with a column of texts: read it in batches, copy the file without some of its rows.

Both kinds answer to `TextFile`. Parquet rows keep their columns, types and compression, JSON lines are copied byte by
byte; every line of the latter counts as a row, blank ones too, so that row numbers are those an editor shows.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chimed.errors import SourceError

BATCH = 8 << 20  # bytes of text that are read at a time
ROWS = 8192
GROUP = 16 << 20  # bytes of a row group that is written
AHEAD = 4 << 20  # bytes of a column that are read from disk at a time; without it, all of a row group

Told = Callable[[int], None]
Stays = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows in a run: their texts ("" for none), how many bytes of the file they stand for, unreadable ones."""

    texts: pa.StringArray
    size: int
    faults: list[int]


class TextFile(Protocol):
    """A file with a text in every row."""

    path: Path
    size: int

    def batches(self) -> Iterator[Batch]:
        """All rows in order."""
        ...

    def copy(self, target: Path, stays: Stays, told: Told) -> None:
        """Write the rows that stay, in the same format; `told` hears of the bytes passed."""
        ...


def opened(path: Path, column: str) -> TextFile:
    """The file as what its content says it is. Raises SourceError where it has no such column of texts."""
    try:
        with path.open("rb") as disk:
            magic = disk.read(4)
        return _Parquet(path, column) if magic == b"PAR1" else _JsonLines(path, column)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None


class _Parquet:
    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column, self.size = path, column, path.stat().st_size
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowException as error:
            raise SourceError(f"{path}: not a whole Parquet file ({error})") from None
        schema = file.schema_arrow
        if schema.get_field_index(column) < 0:
            raise _no_column(path, column, schema.names)
        kind = schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise SourceError(f"{path}: column {column!r} holds {kind}, not text; give another with --column")

    def batches(self) -> Iterator[Batch]:
        with pq.ParquetFile(self.path, buffer_size=AHEAD, pre_buffer=False) as file:
            count = max(file.metadata.num_rows, 1)
            for texts in self._read(file, [self.column]):
                array = texts.column(0).cast(pa.string())
                array = pc.fill_null(array, "") if array.null_count else array
                yield Batch(array, self.size * len(array) // count, [])

    def copy(self, target: Path, stays: Stays, told: Told) -> None:
        with pq.ParquetFile(self.path, buffer_size=AHEAD, pre_buffer=False) as file:
            group = file.metadata.row_group(0) if file.metadata.num_row_groups else None
            chunks = [group.column(number) for number in range(group.num_columns)] if group else []
            dictionaries = [chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page] or False
            codec = chunks[0].compression if chunks else "SNAPPY"
            at, held, size = 0, list[pa.RecordBatch](), 0
            schema = file.schema_arrow
            with (
                pq.ParquetWriter(target, schema, compression=codec, use_dictionary=dictionaries) as writer,
                ThreadPoolExecutor(1) as beside,  # one group is written while the next is read
            ):
                written = beside.submit(int)
                for batch in self._read(file, None):
                    part = stays[at : at + len(batch)]
                    at += len(batch)
                    held += _kept(batch, part)
                    size += batch.nbytes
                    if size > GROUP or at == len(stays):
                        written.result()
                        written = beside.submit(writer.write_table, pa.Table.from_batches(held, schema))
                        held, size = [], 0
                    told(self.size * len(batch) // max(len(stays), 1))
                written.result()
        _unchanged(self.path, at, len(stays))

    def _read(self, file: pq.ParquetFile, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        """All rows; as many at a time as make a few megabytes."""
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        largest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1)
        rows = int(min(max(BATCH / max(largest, 1), 16), ROWS))
        try:
            yield from file.iter_batches(rows, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.path}: damaged Parquet file ({error})") from None


class _JsonLines:
    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column, self.size = path, column, path.stat().st_size
        head = next(self._blocks(), b"").removeprefix(b"\xef\xbb\xbf")
        found: dict[str, None] = {}
        for line in head.split(b"\n"):
            row = _parsed(line)
            found.update(dict.fromkeys(row or ()))
            if column in found:
                return
        if found:
            raise _no_column(path, column, list(found))
        if head.strip():
            raise SourceError(
                f"{path}: neither Parquet nor JSON lines: no line of the first {len(head):,} bytes is an object"
            )

    def batches(self) -> Iterator[Batch]:
        first = True
        for block in self._blocks():
            lines = block.removesuffix(b"\n").split(b"\n")
            if first:
                lines[0], first = lines[0].removeprefix(b"\xef\xbb\xbf"), False
            texts, faults = [], []
            for number, line in enumerate(lines):
                row = _parsed(line)
                text = row.get(self.column) if row is not None else None
                if type(text) is str:
                    texts.append(text)
                else:
                    texts.append("")
                    if text is not None or (row is None and line.strip()):
                        faults.append(number)
            yield Batch(pa.array(texts, pa.string()), len(block), faults)

    def copy(self, target: Path, stays: Stays, told: Told) -> None:
        at = 0
        with target.open("wb") as out:
            for block in self._blocks():
                ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
                if not block.endswith(b"\n"):
                    ends = np.append(ends, len(block))
                part = stays[at : at + len(ends)]
                at += len(ends)
                bounds = np.concatenate([[0], ends])
                for start, stop in _runs(part):
                    out.write(block[bounds[start] : bounds[stop]])
                told(len(block))
        _unchanged(self.path, at, len(stays))

    def _blocks(self) -> Iterator[bytes]:
        """The file in pieces of whole lines."""
        with self.path.open("rb") as disk:
            while block := disk.read(BATCH):
                yield block if block.endswith(b"\n") else block + disk.readline()


def _parsed(line: bytes) -> dict[str, object] | None:
    """The object of a line, None for anything else."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if type(row) is dict else None


def _no_column(path: Path, column: str, found: list[str]) -> SourceError:
    return SourceError(f"{path}: no column {column!r}; it has {', '.join(found[:20])}: give one with --column")


def _unchanged(path: Path, rows: int, before: int) -> None:
    if rows != before:
        raise SourceError(f"{path}: the file changed while it was read; start again once it is complete")


def _kept(batch: pa.RecordBatch, stays: Stays) -> list[pa.RecordBatch]:
    """The rows of a batch that stay."""
    packed = np.packbits(stays, bitorder="little")
    mask = pa.Array.from_buffers(pa.bool_(), len(stays), [None, pa.py_buffer(packed)])
    try:
        return [batch if stays.all() else batch.filter(mask)]
    except pa.ArrowNotImplementedError:  # there are types that Arrow cannot filter, such as string views
        return [batch.slice(start, stop - start) for start, stop in _runs(stays)]


def _runs(stays: Stays) -> list[tuple[int, int]]:
    """Where each run of rows that stay begins and ends."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], stays, [False]]).astype(np.int8))).tolist()
    return list(zip(turns[::2], turns[1::2], strict=True))
