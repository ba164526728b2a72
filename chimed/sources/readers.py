"""Rows from raw files, whatever they are: what a file holds is told by its content, not by its name.

`find` lists the files of a source, `slices` cuts a large one so that several workers can read it, `rows` reads. Memory
is bounded by a few chunks and the largest row. Every oddity ends as a `RowError` that takes the place of its row, or,
when the file as a whole cannot be read, as one `SourceError`.
"""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import IO, Literal, cast

from chimed.errors import RowError, SourceError
from chimed.sources import json_rows
from chimed.sources.archives import (
    CHUNK,
    ZIP,
    Fingerprint,
    RawFile,
    Unread,
    find,
    fingerprint,
    is_workbook,
    looked_up,
    opened,
    refusal,
    stamp,
)
from chimed.sources.encodings import decoded, find_out, utf8
from chimed.sources.lines import Several, json_lines, many_blocks, many_lines, runs, text_lines, whole
from chimed.sources.lookups import Table, joined
from chimed.sources.spec import AtOnce, Source
from chimed.sources.tables import Numbered, arrow_rows, csv_rows, looks_like_csv, xlsx_rows

__all__ = [
    "Fingerprint",
    "RawFile",
    "Slice",
    "Unread",
    "find",
    "fingerprint",
    "form",
    "looked_up",
    "many",
    "rows",
    "slices",
]

Form = Literal["parquet", "arrow", "arrow-stream", "xlsx", "json", "json-lines", "csv", "text", "foreign", "empty"]
_TABLES = {".csv", ".tsv", ".tab", ".xlsx", ".xls", ".parquet", ".feather", ".arrow"}
_JSON = {".json", ".jsonl", ".ndjson"}
_HEAD = 1 << 18
_HELD = 256 << 20  # tables that need random access are held in memory when they lie in an archive: up to this size
_FOREIGN = (
    (b"%PDF-", "a PDF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file"),
    (b"Rar!\x1a", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)


@dataclass(frozen=True, slots=True)
class Slice:
    """A range of bytes of a file, cut at line ends, with `first_row` lines before it; stop=-1 is the whole file.

    `encoding` is what `slices` found the file to be in, so that all its slices are read alike.
    """

    file: RawFile
    start: int = 0
    stop: int = -1
    first_row: int = 0
    encoding: str = "auto"


@dataclass(frozen=True, slots=True)
class _Look:
    """What the first chunk of a file tells."""

    form: Form
    returns: bool  # carriage returns are its only line ends
    text: bytes  # the beginning of a text as UTF-8
    why: str = ""


def form(source: Source, file: RawFile) -> Form:
    """What a file holds, told by its beginning; "foreign" is what no reader reads, archives included."""
    try:
        with opened(file) as chunks:
            return _look(source, file, next(chunks, b"")).form
    except RowError:
        return "foreign"


def _look(source: Source, file: RawFile, head: bytes) -> _Look:
    if not head:
        return _Look("empty", False, b"", f"{file.size} bytes on disk, none in it")
    for magic, kind in ((b"PAR1", "parquet"), (b"ARROW1\0\0", "arrow")):
        if head.startswith(magic):
            return _Look(kind, False, b"")  # type: ignore[arg-type]
    if head.startswith(b"\xff\xff\xff\xff") and 0 < int.from_bytes(head[4:8], "little") < CHUNK:
        return _Look("arrow-stream", False, b"")
    if head.startswith(ZIP):
        return _Look("xlsx", False, b"")
    why = "a tar archive" if head[257:262] == b"ustar" else next((w for m, w in _FOREIGN if head.startswith(m)), "")
    if why:
        return _Look("foreign", False, b"", f"{why}: unpack it or turn it into text by hand")
    text = b"".join(utf8([head[:_HEAD]], source.encoding))
    returns = b"\n" not in text and b"\r" in text
    text = text.replace(b"\r", b"\n") if returns else text
    return _Look(_text_form(file, text, len(head) <= _HEAD), returns, text)


def _text_form(file: RawFile, head: bytes, whole: bool) -> Form:
    suffix = file.inner.suffix.lower()
    share = json_rows.lines_share(head, whole) if suffix in _JSON or head.lstrip()[:1] == b"{" else 0.0
    several = head.rstrip().count(b"\n") > 0
    if several and (share >= 0.5 if suffix not in {".jsonl", ".ndjson"} else share > 0):
        return "json-lines"
    if json_rows.is_json(head):
        return "json"
    if suffix in _TABLES or looks_like_csv(decoded(head[: 1 << 16])[0]):
        return "csv"
    return "text"


def slices(source: Source, file: RawFile, size: int = 32 << 20) -> list[Slice]:
    """The file in ranges of about `size` bytes where it can be cut, else whole.

    JSON lines and plain text by lines are cut, unless they are compressed, in a zip, or in UTF-16. Row numbers are
    those that reading the whole file gives.
    """
    whole = [Slice(file)]
    if file.member or file.size <= size:
        return whole
    try:
        with opened(file) as chunks, file.path.open("rb") as disk:
            head = next(chunks, b"")
            packed = disk.read(len(head)) != head
    except RowError:
        return whole  # `rows` tells what is wrong with it
    look = _look(source, file, head)
    if packed or not (look.form == "json-lines" or (look.form == "text" and source.text == "lines")):
        return whole
    with opened(file, 0, file.size) as chunks:
        encoding = source.encoding if source.encoding != "auto" else find_out(chunks)
    if "16" in encoding:
        return whole
    found: list[Slice] = []
    start = lines = 0
    blank = True
    with file.path.open("rb") as disk:
        while start < file.size:
            blank = blank and not disk.read(min(size, CHUNK)).decode(encoding, "ignore").replace("\ufeff", "").strip()
            disk.seek(start)
            stop, ends = _cut(disk, size, look.returns)
            found.append(Slice(file, start, stop, lines, encoding))
            start, lines = stop, lines + ends
    return whole if blank else found  # whoever reads all of a file tells that it holds no row


def _cut(disk: IO[bytes], size: int, returns: bool) -> tuple[int, int]:
    """Where the line of the `size`-th byte from here ends, and the number of lines till there."""
    end, lines, left = b"\r" if returns else b"\n", 0, size - 1
    while part := disk.read(min(left, CHUNK) if left > 0 else CHUNK):
        at = part.find(end) if left <= 0 else -1
        if at >= 0:
            disk.seek(at + 1 - len(part), io.SEEK_CUR)
            part = part[: at + 1]
        lines += part.count(b"\n") + (part.count(b"\r") if returns else 0)
        left -= len(part)
        if at >= 0:
            break
    return disk.tell(), lines


def rows(source: Source, part: Slice) -> Numbered:
    """(row number from 1, row or its reject) of a slice, in order.

    Numbers are those of data rows in csv and spreadsheets (the header does not count), of lines in JSON lines and
    plain text, of elements or members in other JSON, of paragraphs, and 1 for a whole file. They do not depend on how
    the file was sliced. A file without any row gives one reject, `empty-file`. Rows come joined with what the lookups
    of the source say of them. Raises `SourceError` when a file is missing, not readable, or changes while it is read.
    """
    found = cast("Numbered", _rows(source, part))
    file = part.file
    if not file.joins:
        return found
    return joined(source, file, found, lambda place: _table(source, place, file.joins[place] or (), _stamps(file)))


def many(source: Source, part: Slice) -> Several:
    """What `rows` gives, with rows that the source parses at once in one piece, under the number of the first."""
    return rows(source, part) if part.file.joins or not source.at_once else _rows(source, part, source.at_once)


def _stamps(file: RawFile) -> tuple[tuple[int, int], ...]:
    return tuple(stamp(one) for one in looked_up([file]))


@lru_cache(maxsize=4)
def _table(source: Source, place: int, files: tuple[RawFile, ...], _stamps: tuple[tuple[int, int], ...]) -> Table:
    """What a lookup's files say. Kept: all the parts that a process reads look into the same few files."""
    table = Table(source.lookups[place])
    for file in files:
        table.add(file.name, cast("Numbered", _rows(source, Slice(file))))
    return table


def _rows(source: Source, part: Slice, at_once: AtOnce | None = None) -> Several:
    file = part.file
    before = stamp(file)
    number = part.first_row
    nothing = True
    try:
        for number, row in _read(source, part, at_once):
            nothing = False
            if source.named and type(row) is dict:
                row["#file"] = file.name
            yield number, row
    except RowError as fault:
        nothing = False
        yield number + 1, fault
    if nothing and part.stop < 0:
        yield 1, RowError("empty-file", f"{file.size:,} bytes and no row in them")
    if stamp(file) != before:
        raise SourceError(f"{file.path}: the file changed while it was read; start again once it is complete")


def _read(source: Source, part: Slice, at_once: AtOnce | None) -> Several:
    file = part.file
    with opened(file) as rest:
        head = next(rest, b"")
        look = _look(source, file, head)
        if look.form in {"empty", "foreign"}:
            raise RowError("empty-file" if look.form == "empty" else "unsupported-format", look.why)
        if look.form in {"parquet", "arrow", "arrow-stream", "xlsx"}:
            with _seekable(file, head, rest) as disk:
                yield from _workbook(disk, file) if look.form == "xlsx" else arrow_rows(disk, look.form)
            return
        if part.stop < 0:
            chunks = chain([head], rest) if head.strip(b"\0") else _beyond_nuls(head, rest)
            yield from _parsed(source, part, look, utf8(chunks, source.encoding, look.returns), at_once)
            return
    with opened(file, part.start, part.stop) as rest:
        # A byte-order mark is one only at the start of the file: no later slice begins with its first chunk.
        chunks = chain([b""] if part.start else [], rest)
        yield from _parsed(source, part, look, utf8(chunks, part.encoding, look.returns), at_once)


def _parsed(source: Source, part: Slice, look: _Look, chunks: Iterator[bytes], at_once: AtOnce | None) -> Several:
    first = part.first_row + 1
    if look.form == "json-lines":
        return json_lines(chunks, first)
    if look.form == "json":
        return enumerate(json_rows.values(chunks), 1)
    if look.form == "csv":
        return csv_rows(chunks, decoded(look.text[: 1 << 16])[0], part.file.name)
    stem = part.file.inner.stem
    if source.text == "lines":
        return many_lines(chunks, first, stem, at_once) if at_once else text_lines(chunks, first, stem)
    if source.text == "blocks" and at_once:
        return many_blocks(chunks, stem, source.opens, at_once)
    return whole(chunks, stem) if source.text == "file" else runs(chunks, stem, source.opens)


def _beyond_nuls(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a file that begins with nothing but NULs, if there is anything else."""
    nuls = len(head)
    for chunk in chunks:
        if chunk.strip(b"\0"):
            return chain([b"\0", chunk], chunks)
        nuls += len(chunk)
    raise RowError("nul-bytes", f"{nuls:,} NUL bytes and nothing else: the download was never completed")


@contextmanager
def _seekable(file: RawFile, head: bytes, chunks: Iterator[bytes]) -> Iterator[IO[bytes]]:
    """The file where any part can be read: on disk as it is, in memory when it lies in an archive."""
    with file.path.open("rb") as disk:
        if not file.member and disk.read(len(head)) == head:
            disk.seek(0)
            yield disk
            return
    parts, size = [head], len(head)
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > _HELD:
            raise RowError("nested-archive", f"a table of more than {_HELD:,} bytes in an archive; unpack it by hand")
    yield io.BytesIO(b"".join(parts))


def _workbook(disk: IO[bytes], file: RawFile) -> Numbered:
    try:
        members = zipfile.ZipFile(disk).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as fault:
        raise RowError("truncated-archive", f"{fault}; fetch the file again") from None
    if not members:
        raise RowError("empty-file", "an archive without members")
    if not is_workbook({info.filename for info in members}):
        raise RowError("nested-archive", "a zip within an archive; unpack it by hand")
    if refused := next(filter(None, map(refusal, members)), None):
        raise refused
    disk.seek(0)
    return xlsx_rows(disk, file.name)
