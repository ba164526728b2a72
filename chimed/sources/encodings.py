"""Bytes in any encoding as UTF-8, and whole lines of it.

Behind `utf8` every reader sees one form: UTF-8, lines ended by a newline, no byte-order mark. A byte that cannot be
decoded stays where it is as a sequence that is no valid UTF-8, so that the row it stands in, and no other, fails to
decode and is rejected by its reader.
"""

import codecs
from collections.abc import Iterable, Iterator

from chimed.errors import RowError, SourceError

LIMIT = 16 << 20  # no row is larger than this: what memory is bounded by
_MARK = "\udcff"
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_PROBE = 1 << 16
_SAMPLE = 1 << 18
_ASCII = bytes(range(128))


def _undecodable(fault: UnicodeError) -> tuple[str, int]:
    assert isinstance(fault, UnicodeDecodeError)
    return _MARK, fault.end


codecs.register_error("chimed.undecodable", _undecodable)


def utf8(chunks: Iterable[bytes], encoding: str = "auto", returns: bool = False) -> Iterator[bytes]:
    r"""Chunks as UTF-8, from an encoding named or found out; `returns` turns carriage returns into newlines.

    The encoding is decided at the first chunk that is not ASCII, so a file may begin with megabytes of it.

    >>> b"".join(utf8(["头痛三天".encode("gb18030")])).decode()
    '头痛三天'
    """
    try:
        known = "" if encoding == "auto" else codecs.lookup(encoding).name
    except LookupError:
        raise SourceError(f"the encoding {encoding!r} is unknown; name one such as gb18030, or auto") from None
    decoder: codecs.IncrementalDecoder | None = None
    fault: RowError | None = None
    chunks = iter(chunks)
    for number, chunk in enumerate(chunks):
        data = chunk
        if number == 0:
            known = known or wide(data)
            data = data.removeprefix(next((bom for bom, name in _BOMS if name == known), b""))
        if not known and not data.isascii():
            more, fault = _next(chunks)
            data += more
            known = guess(data)
        if known not in {"", "utf-8"}:
            decoder = decoder or codecs.getincrementaldecoder(known)("chimed.undecodable")
            text = decoder.decode(data)
            data = _encoded(text.removeprefix("\ufeff") if number == 0 else text)
        yield data.replace(b"\r", b"\n") if returns else data
        if fault:
            raise fault
    if decoder and (rest := decoder.decode(b"", True)):
        yield _encoded(rest)


def find_out(chunks: Iterator[bytes]) -> str:
    """The encoding that `utf8` decides on for these chunks."""
    for number, chunk in enumerate(chunks):
        if number == 0 and (known := wide(chunk)):
            return known
        if not chunk.isascii():
            return guess(chunk + _next(chunks)[0])
    return "utf-8"


def _next(chunks: Iterator[bytes]) -> tuple[bytes, RowError | None]:
    try:
        return next(chunks, b""), None
    except RowError as fault:
        return b"", fault


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def wide(head: bytes) -> str:
    """The encoding that a byte-order mark or the places of the NULs tell: UTF-8, UTF-16 or "".

    >>> wide("头痛 3 天，发热。".encode("utf-16-be"))
    'utf-16-be'
    """
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    probe = head[: min(_PROBE, len(head) // 2 * 2)]
    nuls = probe.count(0)
    if not nuls or nuls == len(probe):
        return ""
    odd = probe[1::2].count(0)
    if max(odd, nuls - odd) < 0.95 * nuls:
        return ""
    name = "utf-16-le" if 2 * odd > nuls else "utf-16-be"
    if nuls < len(probe) // 4 and (probe.isascii() or _evident(probe)):
        return ""  # UTF-8 or GB18030 with a few stray NULs
    try:
        codecs.getincrementaldecoder(name)().decode(probe)
    except UnicodeDecodeError:
        return ""
    return name


def guess(chunk: bytes) -> str:
    """UTF-8 or GB18030: whichever most of the characters beyond ASCII speak for, UTF-8 where neither has evidence.

    GB18030 allows nearly any bytes, so half of what it gives also has to be common Chinese (characters of GB 2312):
    text in GB18030 has a share of 1.0, or .69 in traditional script, UTF-8 and Big5 misread as GB18030 one of .3. A
    bad byte or a few letters of Latin-1 do not turn a file into GB18030.

    >>> guess("血压".encode() + b"\\xff"), guess("血压偏高".encode("gb18030")), guess(b"caf\\xe9 au lait")
    ('utf-8', 'gb18030', 'utf-8')
    """
    return _evident(chunk) or "utf-8"


def _evident(chunk: bytes) -> str:
    start = len(chunk) - len(chunk.lstrip(_ASCII))
    sample = chunk[start : start + _SAMPLE]
    text = sample.decode("utf-8", "replace")
    bad = text.count("\ufffd") - sample.count(b"\xef\xbf\xbd")
    if _beyond_ascii(text) - bad > 2 * bad:
        return "utf-8"
    text = sample.decode("gb18030", "replace")
    common = text.encode("gb2312", "ignore").decode("gb2312")
    return "gb18030" if 2 * _beyond_ascii(common) > _beyond_ascii(text) else ""


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))


def blocks(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    r"""Whole lines in blocks, each ended by a newline (the last one may lack it); None stands for one line over LIMIT.

    When the chunks end in a `RowError` (a cut archive), the line it cuts is not given.

    >>> list(blocks([b"a\nb", b"b\nc"]))
    [b'a\n', b'bb\n', b'c']
    """
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        first = chunk.find(b"\n") + 1
        if not first:
            held += len(chunk)
            parts = [*parts, chunk] if held <= LIMIT else []
            continue
        last = chunk.rfind(b"\n") + 1
        if held + first > LIMIT:
            yield None
            yield from [chunk[first:last]] if first < last else []
        else:
            yield b"".join([*parts, chunk[:last]])
        parts, held = [chunk[last:]], len(chunk) - last
    if held > LIMIT:
        yield None
    elif held:
        yield b"".join(parts)


def undecodable(line: bytes) -> RowError | None:
    r"""Why a line in UTF-8 gives no row, if so: NULs, or bytes that could not be decoded.

    >>> print(undecodable("血压".encode()), undecodable("血压".encode() + b"\xff"))
    None bad-encoding: undecodable bytes ff behind 2 characters of the row
    """
    if b"\0" in line:
        return RowError("nul-bytes", f"{line.count(0)} NUL bytes, the first at byte {line.index(0)} of the row")
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as fault:
        return _bad(len(line[: fault.start].decode()), line[fault.start : fault.end].hex())
    return None


def _bad(behind: int, found: str = "") -> RowError:
    if found in {"", "ed"}:  # what `utf8` leaves in place of a byte
        return RowError("bad-encoding", f"undecodable bytes behind {behind} characters of the row")
    return RowError("bad-encoding", f"undecodable bytes {found} behind {behind} characters of the row")


def lost(text: str) -> RowError | None:
    """The same for text that was already decoded, with undecodable bytes as lone surrogates."""
    if "\0" in text:
        return RowError("nul-bytes", f"{text.count(chr(0))} NULs, the first behind {text.index(chr(0))} characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as fault:
        return _bad(fault.start)
    return None


def decoded(block: bytes) -> tuple[str, bool]:
    """A block of UTF-8 as text, and whether all of it is sound; where not, `lost` tells which parts.

    >>> decoded("头痛".encode())
    ('头痛', True)
    """
    try:
        return block.decode("utf-8"), b"\0" not in block
    except UnicodeDecodeError:
        return block.decode("utf-8", "chimed.undecodable"), False
