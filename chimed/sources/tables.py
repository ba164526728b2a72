"""Rows from tables: csv and its kin, spreadsheets, Parquet and Arrow files.

Each gives (data row number from 1, row or reject). A row is a dict by column name; cells of csv are text.
"""

import csv
import io
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import date, time
from itertools import chain
from typing import IO, Any
from xml.etree.ElementTree import ParseError

import pyarrow as pa
import pyarrow.parquet as pq

from chimed.errors import RowError, SourceError
from chimed.sources.encodings import LIMIT, blocks, decoded, lost
from chimed.sources.spec import Row

Numbered = Iterator[tuple[int, Row | RowError]]
_DELIMITERS = ",\t;|"
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,40}", re.ASCII)


def looks_like_csv(head: str) -> bool:
    """Whether text is a table under a header: plain names in the first line, as many cells in the next ones.

    >>> looks_like_csv("question_id,ans_id\\n51,76\\n"), looks_like_csv("Hello, world\\nto, all of you\\n")
    (True, False)
    """
    try:
        rows = [row for row in csv.reader(head.split("\n", 20)[:20], delimiter=delimiter(head)) if row]
    except csv.Error:
        return False
    names = rows[0] if rows else []
    return (
        len(rows) > 1
        and len(names) > 1
        and len(set(names)) == len(names)
        and all(map(_NAME.fullmatch, names))
        and all(len(row) == len(names) for row in rows[1:-1] or rows[1:])  # the last may be cut
    )


def delimiter(head: str) -> str:
    r"""What parts the cells of a csv, by its first line.

    >>> delimiter('id\tname, if any\tanswer\n')
    '\t'
    """
    first = re.sub(r'"[^"]*"', "", head.lstrip("\n").partition("\n")[0])
    return max(_DELIMITERS, key=first.count)


class _Lines:
    """Blocks of text for the csv parser, with what it does not tell: how far it has read, and which blocks are unsound.

    A class, not a generator, because it goes on after it has raised the reject of a line that is too long.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._blocks = blocks(chunks)
        self.count = 0
        self.unsound = -1
        self.ended = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> io.StringIO:
        block = next(self._blocks, b"")
        if block is None:
            raise RowError("field-too-large", f"a line of more than {LIMIT:,} bytes")
        if not block:
            self.ended = True
            raise StopIteration
        text, sound = decoded(block)
        self.count += 1
        if not sound:
            self.unsound = self.count
        return io.StringIO(text, newline="\n")


def header(cells: list[Any], name: str) -> list[str]:
    """Column names from the cells of a header: empty ones at the end are dropped, others are called by their number.

    >>> header(["", "question", " answer", "", ""], "a.csv")
    ['#1', 'question', 'answer']
    """
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    names = [column or f"#{number}" for number, column in enumerate(names, 1)]
    twice = [repr(column) for column, times in Counter(names).items() if times > 1]
    if twice:
        raise SourceError(f"{name}: the header has {', '.join(twice)} more than once; rename the columns in the file")
    return names


def csv_rows(chunks: Iterator[bytes], head: str, name: str) -> Numbered:
    """The rows of a csv; rejects are `wrong-column-count`, `unclosed-quote`, `field-too-large`, `broken-csv`,
    `bad-encoding` and `nul-bytes`. Blank lines do not count.
    """
    csv.field_size_limit(LIMIT)
    between = delimiter(head)
    lines = _Lines(chunks)
    feed = chain.from_iterable(lines)
    reader = csv.reader(feed, delimiter=between)
    names: list[str] | None = None
    number = began = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            number += 1
            yield number, _complaint(fault, feed)
            continue
        except RowError as long_line:
            if long_line.reason != "field-too-large":
                raise
            number += 1
            yield number, long_line
            feed = chain.from_iterable(lines)
            reader = csv.reader(feed, delimiter=between)
            continue
        if not cells or (len(cells) == 1 and not cells[0].strip()):
            continue
        if names is None:
            names = header(cells, name)
            continue
        number += 1
        if lines.ended:
            yield number, RowError("unclosed-quote", f"a quote opened in row {number} is not closed to the end")
        elif lines.unsound >= began and (unsound := lost(between.join(cells))):
            yield number, unsound
        elif len(cells) == len(names) or (len(cells) > len(names) and not any(cells[len(names) :])):
            yield number, dict(zip(names, cells, strict=False))
        else:
            yield number, RowError("wrong-column-count", f"found {len(cells)} cells, the header has {len(names)}")
        began = lines.count


def _complaint(fault: csv.Error, feed: Iterator[str]) -> RowError:
    """The reject for what the csv parser cannot take; of a quoted field too large, the rest is left behind."""
    if "field limit" not in str(fault):
        return RowError("broken-csv", str(fault))
    closed = any(line.count('"') % 2 for line in feed)
    what = "a quoted field" if closed else "a quote opened here is not closed to the end, and the field is"
    return RowError("field-too-large", f"{what} over {LIMIT:,} characters")


def xlsx_rows(file: IO[bytes], name: str) -> Numbered:
    """The rows of all sheets of a spreadsheet, one sheet after the other, each under its own header.

    Text, numbers and truth values stay what they are, dates become ISO text, empty cells ""; blank rows count but are
    left out.
    """
    import openpyxl  # noqa: PLC0415 - a quarter of a second that every worker would pay for the one that needs it

    number = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # styles and validations it leaves out are no rows
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()
            names: list[str] | None = None
            for cells in sheet.iter_rows(values_only=True):
                if names is None:
                    names = header(list(cells), name) if any(cell is not None for cell in cells) else None
                    continue
                number += 1
                if any(cell not in {None, ""} for cell in cells):
                    yield number, _sheet_row(names, cells)
    except SourceError:
        raise
    except (zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, EOFError, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        yield number + 1, RowError("broken-xlsx", f"{fault}; fetch the file again")


def _sheet_row(names: list[str], cells: tuple[Any, ...]) -> Row | RowError:
    if any(cell not in {None, ""} for cell in cells[len(names) :]):
        return RowError("wrong-column-count", f"found {len(cells)} cells, the header has {len(names)}")
    full = (*cells, *[None] * (len(names) - len(cells)))
    return {column: _cell(value) for column, value in zip(names, full, strict=False)}


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return value
    return value.isoformat() if isinstance(value, date | time) else str(value)


def arrow_rows(file: IO[bytes], form: str) -> Numbered:
    """The rows of a Parquet file, an Arrow file or the Arrow stream that `datasets` saves to disk."""
    number = 0
    try:
        if form == "parquet":
            batches: Iterator[pa.RecordBatch] = pq.ParquetFile(file).iter_batches(batch_size=1024)
        elif form == "arrow":
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(file))
        for batch in batches:
            step = max(1, batch.num_rows * LIMIT // max(batch.nbytes, LIMIT))  # long rows a few at a time
            for start in range(0, batch.num_rows, step):
                for row in _taken(batch.slice(start, step)):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        yield number + 1, RowError(f"broken-{form}", f"{str(fault).splitlines()[0][:120]}; fetch the file again")


def _taken(batch: pa.RecordBatch) -> list[Row | RowError]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as fault:
        if batch.num_rows == 1:
            return [RowError("bad-encoding", f"bytes {fault.object[fault.start : fault.end].hex()} are no UTF-8")]
        return [row for index in range(batch.num_rows) for row in _taken(batch.slice(index, 1))]
