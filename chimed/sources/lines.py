"""Rows from lines: JSON lines, and plain text by lines, paragraphs, blocks or whole files."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from chimed.errors import RowError
from chimed.sources import json_rows
from chimed.sources.encodings import LIMIT, blocks, decoded, undecodable
from chimed.sources.spec import AtOnce, Many, Row
from chimed.sources.tables import Numbered

Several = Iterator[tuple[int, Row | RowError | Many]]
_HEADING = 1 << 14  # bytes: the line that opens a block is shorter


def json_lines(chunks: Iterator[bytes], first: int) -> Numbered:
    """The rows of JSON lines, with the number of the line."""
    number = first
    parse = json_rows.parse
    for block in blocks(chunks):
        if block is None:
            yield number, _too_large()
            number += 1
            continue
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), number):  # noqa: B020
            row = parse(line)
            if type(row) is dict or line.strip():
                yield number, row
        number += 1


def _too_large() -> RowError:
    return RowError("row-too-large", f"more than {LIMIT:,} bytes")


def text_lines(chunks: Iterator[bytes], first: int, name: str) -> Numbered:
    """A row a line that is not blank, with its number."""
    for start, lines in _lines(chunks, first):
        for number, text in enumerate(lines, start):
            if isinstance(text, RowError):
                yield number, text
            elif text and not text.isspace():
                yield number, {"text": text, "name": name}


def _lines(chunks: Iterator[bytes], first: int) -> Iterator[tuple[int, Sequence[str | RowError]]]:
    """Runs of lines with the number of the first; what cannot be decoded is a reject in place of its line."""
    number = first
    for text in _texts(chunks):
        lines = text.split("\n") if isinstance(text, str) else text
        yield number, lines
        number += len(lines)


def _texts(chunks: Iterator[bytes]) -> Iterator[str | Sequence[str | RowError]]:
    """Some lines at a time: as one text without the last line end, or one by one where something cannot be decoded."""
    for block in blocks(chunks):
        if block is None:
            yield [_too_large()]
            continue
        body = block.removesuffix(b"\n")
        text, sound = decoded(body)
        if sound:
            yield text.replace("\r\n", "\n").removesuffix("\r") if b"\r" in body else text
        else:
            yield [undecodable(line) or line.removesuffix(b"\r").decode() for line in body.split(b"\n")]


def runs(chunks: Iterator[bytes], name: str, opens: str = "") -> Numbered:
    """Runs of lines, numbered from 1: those that no blank line parts, or those that begin at a line `opens` matches."""
    number = size = 0
    held: list[str] = []
    fault: RowError | None = None
    for piece in _begun(chunks, opens) if opens else _parted(chunks):
        if isinstance(piece, RowError):
            fault = fault or piece
        elif piece is None:
            if fault or held:
                number += 1
                yield number, fault or {"text": "\n".join(held), "name": name}
            held, size, fault = [], 0, None
        elif held or (piece := _LEADING.sub("", piece) if piece[:1].isspace() else piece):
            size += len(piece) + 1
            held.append(piece)
            if size > LIMIT:
                fault = fault or _too_large()
                held.clear()


_LEADING = re.compile(r"\A(?:[^\S\n]*\n)*(?:[^\S\n]+\Z)?")  # blank lines
_Pieces = Iterator[str | RowError | None]


def _parted(chunks: Iterator[bytes]) -> _Pieces:
    """Lines, None where one is blank and at the end."""
    for line in chain(chain.from_iterable(lines for _, lines in _lines(chunks, 1)), [None]):
        yield None if isinstance(line, str) and (not line or line.isspace()) else line


def _begun(chunks: Iterator[bytes], opens: str) -> _Pieces:
    """Texts of whole lines, None before a line that `opens` matches and at the end."""
    begins = re.compile(rf"\n[^\S\n]*(?:{opens})[^\S\n]*$", re.MULTILINE)  # faster than ^
    for pieces in _texts(chunks):
        for piece in (pieces,) if isinstance(pieces, str) else pieces:
            if isinstance(piece, RowError):
                yield piece
                continue
            text, at = f"\n{piece}", 0
            for found in begins.finditer(text):
                if found.start() > at:
                    yield text[at + 1 : found.start()]
                yield None
                at = found.start()
            yield text[at + 1 :]
    yield None


def many_lines(chunks: Iterator[bytes], first: int, name: str, parse: AtOnce) -> Several:
    """The lines that `text_lines` gives, those that `parse` takes at once together, under the number of the first."""
    for block in blocks(chunks):
        if block is None:
            yield first, _too_large()
            first += 1
        elif found := parse(block, name):
            yield first, found
            first += found.count
        else:
            yield from text_lines(iter([block]), first, name)
            first += block.removesuffix(b"\n").count(b"\n") + 1


def many_blocks(chunks: Iterator[bytes], name: str, opens: str, parse: AtOnce) -> Several:
    """The blocks that `runs` gives, those that `parse` takes at once together, under the number of the first."""
    begins = re.compile(rb"\n(?=" + opens.encode() + rb"\n)")
    number, held = 1, b""
    for chunk in chunks:
        held, before = held + chunk, len(held)
        if cut := _last(held, begins, before):
            many = parse(held[:cut], name)
            if many:
                yield number, many
                number += many.count
            else:
                for number, row in _renumbered(runs(iter([held[:cut]]), name, opens), number):  # noqa: B020
                    yield number, row
                number += 1
            held = held[cut:]
        elif len(held) > LIMIT:
            break
    yield from _renumbered(runs(chain([held], chunks), name, opens), number)


def _renumbered(rows: Numbered, first: int) -> Numbered:
    for number, row in rows:
        yield first + number - 1, row


def _last(text: bytes, begins: re.Pattern[bytes], before: int) -> int:
    """Where the last block starts, 0 where none but the first does; the first `before` bytes were searched before."""
    least = max(before - _HEADING, 0)
    start, size = len(text), _HEADING
    while start > least:
        start = max(len(text) - size, least)
        if found := list(begins.finditer(text, start)):
            return found[-1].start() + 1
        size *= 8
    return 0


def whole(chunks: Iterator[bytes], name: str) -> Numbered:
    """One row: the text of a file."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > LIMIT:
            yield 1, _too_large()
            return
        parts.append(chunk)
    body = b"".join(parts)
    if fault := undecodable(body):
        yield 1, fault
    elif body.strip():
        yield 1, {"text": body.decode().replace("\r\n", "\n"), "name": name}
