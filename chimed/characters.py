"""What each character becomes: the tables and compiled kernels behind `chimed.text`.

A text is read once, straight from its Arrow buffer. `scan` says per row which steps it needs, `rewrite` and `arrange`
do two of them, `census` counts scripts. The tables are built from the Unicode database and OpenCC's own dictionary
at first use.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import opencc
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

Strings: TypeAlias = pa.StringArray | pa.LargeStringArray | pa.ChunkedArray
Bytes = npt.NDArray[np.uint8]
Table = npt.NDArray[np.uint64]

LIMIT = 0x33480  # the first code point past the last Han extension; what lies beyond is tags and private use

# Kinds of character, as far as layout and language care.
OTHER, HAN, LATIN, KANA, LETTER, BLANK, LINE, PAUSE, STOP, WIDE, DOT, ELLIPSIS, DASH, PAUSE_ASCII, STOP_ASCII, START = (
    range(16)  # up to LETTER those that no rule of `chimed.spacing` is about
)
# What a row may need: bits of `scan`.
REWRITE, MARKUP, ESCAPE, RESIDUE, SCRIPT, COMPOSE, ARRANGE, GARBLED, CODE = (1 << bit for bit in range(9))

_KIND_OF = {
    BLANK: " \t\xa0\u3000",
    LINE: "\n\r",
    PAUSE: "，、；",
    STOP: "。！？",
    WIDE: "：（）《》〈〉【】〔〕〖〗「」『』～",
    DOT: ".",
    ELLIPSIS: "…",
    DASH: "—",
    PAUSE_ASCII: ",;",
    STOP_ASCII: "!?",
}
_LINES = "\n\r\v\f\x85\u2028\u2029"
_BLANKS = "\t\u2800\ue5e5"  # the last is where GB 18030 once kept a second ideographic space
_HAN = ((0x3005, 0x3005), (0x3007, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, LIMIT - 1))
# What OpenCC converts but simplified medical writing keeps: 癥瘕 (a mass in the belly), 噁唑, 蒜薹, 目劄.
KEPT = frozenset("癥噁薹劄")
# Everything but unified Han and Hangul, which are what they are.
_VARIED = ((0, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7B0, 0xD800), (0xE000, 0x20000), (0x2F800, 0x2FA20))
# Compatibility characters that stay, because their plain spelling can be read as something else: 10² is not 102,
# ⒈5 is not 1.5, ⅠⅡ is not III; and the wide punctuation that is simply Chinese.
_STAY = set("！（），：；？～…‥℃℉№℅") | {
    chr(c) for c in (*range(0x2150, 0x218A), *range(0x2460, 0x2500), *range(0x3200, 0x3300))
}
_STAY_TYPES = ("<super>", "<sub>", "<fraction>")
_WIDEN = dict(zip(",:;?!()", "，：；？！（）", strict=True))
_FIXED = {
    "∶": "：",
    "\u2215": "/",
    "㎡": "m²",
    "㎠": "cm²",
    "㎟": "mm²",
    "㎢": "km²",
    "㎥": "m³",
    "㎤": "cm³",
    "㎣": "mm³",
    "㎦": "km³",
}


@dataclass(frozen=True, slots=True)
class Tables:
    """By code point: its kind, the steps it calls for, and what clean and folded text have for it (see `_pack`)."""

    kind: Bytes
    need: Bytes
    clean: Table
    fold: Table


def _pack(text: str, source: str) -> int | None:
    """Up to seven bytes of UTF-8 above their number; None for more, or if they are more than twice the source's."""
    if not text:
        return 0
    raw = text.encode()
    if len(raw) > min(7, 2 * len(source.encode())):
        return None
    return int.from_bytes(raw, "little") << 8 | len(raw)


def _cleaned(char: str, category: str) -> str:
    """What a reader sees of one character."""
    if char in _FIXED:
        return _FIXED[char]
    if char in _LINES:
        return "\n"
    if char in _BLANKS or category == "Zs":
        return " "
    if category in ("Cc", "Cf", "Co") or char in "\ufffc\ufffd" or "\ufe00" <= char <= "\ufe0f":
        return ""
    parts = unicodedata.decomposition(char)
    if not parts or char in _STAY or parts.startswith(_STAY_TYPES):
        return char
    plain = unicodedata.normalize("NFKC", char).replace("\u2215", "/")
    if " " in plain:
        return char  # a spacing accent is not a blank and an accent
    return _WIDEN.get(plain, plain) if 0xFE10 <= ord(char) < 0xFE70 else plain


def _bare(char: str) -> bool:
    """Whether it has neither parts nor another case."""
    return not unicodedata.decomposition(char) and char.casefold() == char


def _folded(char: str, category: str) -> str:
    """Letters and digits of one character without case, width and accents."""
    if _bare(char):
        return char if category[0] in "LN" else ""
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(c for c in parts if unicodedata.category(c)[0] in "LN")


@cache
def simplified_pairs() -> tuple[tuple[str, str], ...]:
    """Traditional characters with their simplified form, one by one, as OpenCC's dictionary has them."""
    chars = np.concatenate([np.arange(low, high + 1, dtype="<u4") for low, high in _HAN])
    lines = np.stack([chars, np.full_like(chars, ord("\n"))], 1)
    plain = np.frombuffer(opencc.OpenCC("t2s").convert(lines.tobytes().decode("utf-32-le")).encode("utf-32-le"), "<u4")
    ends = np.flatnonzero(plain == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    changed = (ends - starts == 1) & (plain[starts] != chars)
    pairs = zip(chars[changed].tolist(), plain[starts[changed]].tolist(), strict=True)
    return tuple((chr(char), chr(same)) for char, same in pairs)


def own() -> Table:
    """Every code point packed as itself."""
    code = np.arange(LIMIT, dtype=np.uint64)
    tail = [(code >> np.uint64(6 * k) & np.uint64(63)) | np.uint64(128) for k in range(3)]
    forms = (
        code << 8 | 1,
        (code >> 6 | 0xC0) << 8 | tail[0] << 16 | 2,
        (code >> 12 | 0xE0) << 8 | tail[1] << 16 | tail[0] << 24 | 3,
        (code >> 18 | 0xF0) << 8 | tail[2] << 16 | tail[1] << 24 | tail[0] << 32 | 4,
    )
    return np.select([code < 0x80, code < 0x800, code < 0x10000], forms[:3], forms[3])


@cache
def tables() -> Tables:
    """The tables, built once a process in less than a tenth of a second."""
    kinds, needs = bytearray(LIMIT), bytearray(LIMIT)
    seen: dict[int, int] = {}  # code point -> what it is packed as, where that is not itself
    folded: dict[int, int] = {}
    rare = {c: p for c, p in simplified_pairs() if c <= "\uffff" < p}  # few fonts and tokenizers know these forms
    simple = {c: p for c, p in simplified_pairs() if c not in rare}
    plain = {ord(c): p for c, p in (("著", "着"), *simple.items())}
    for low, high in _VARIED:
        for code in range(low, high):
            char = chr(code)
            category = unicodedata.category(char)
            if category == "Cn":
                folded[code] = 0
                continue
            if category[0] == "L":
                kinds[code] = LETTER
            if unicodedata.combining(char) or 0x1100 <= code < 0x1200:
                needs[code] |= COMPOSE
            if category[0] in "LN" and code not in plain and _bare(char):
                continue  # as most are
            text = _cleaned(char, category)
            if text != char and (packed := _pack(text, char)) is not None:
                seen[code] = packed
                needs[code] |= REWRITE
            text = _folded(char, category).translate(plain)
            if text != char and (packed := _pack(text, char)) is not None:
                folded[code] = packed
    kind, need = np.frombuffer(kinds, np.uint8), np.frombuffer(needs, np.uint8)
    clean = own()
    fold = clean.copy()
    for table, own_forms in ((clean, seen), (fold, folded)):
        table[list(own_forms)] = np.array(list(own_forms.values()), np.uint64)
    for char, far in rare.items():
        clean[ord(far)], fold[ord(far)] = clean[ord(char)], fold[ord(char)]
        need[ord(far)] = REWRITE
    for code, same in plain.items():
        fold[code] = fold[ord(same)]
    _mark(kind, need, "".join(simple.keys() - KEPT))
    return Tables(kind, need, clean, fold)


def _mark(kind: Bytes, need: Bytes, traditional: str) -> None:
    """Fill in the kinds of the scripts and marks that matter, and the characters that call for a step."""
    for low, high in _HAN:
        kind[low : high + 1] = HAN
    kind[0x3040:0x3100] = KANA
    kind[0x30FB] = OTHER  # the middle dot of foreign names, common in Chinese
    for low, high in ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F)):
        kind[low : high + 1] = LATIN
    for value, chars in _KIND_OF.items():
        kind[[ord(c) for c in chars]] = value
    for step, chars in ((RESIDUE, "搜"), (SCRIPT, traditional)):
        need[[ord(c) for c in chars]] |= step


def _pairs() -> Bytes:
    """Which two neighbours call for `arrange`: by 16 times the kind of the first, plus that of the second."""
    table = np.zeros((16, 16), np.uint8)
    wide, marks = (PAUSE, STOP, WIDE), (PAUSE, STOP, PAUSE_ASCII, STOP_ASCII)
    for gap in (BLANK, LINE):
        table[gap, (BLANK, LINE)] = table[BLANK, gap] = table[START, gap] = ARRANGE
    for first in marks:
        table[first, marks] = ARRANGE
    table[BLANK, wide] = table[wide, BLANK] = ARRANGE
    table[START, (PAUSE, STOP, WIDE, PAUSE_ASCII)] = ARRANGE
    for mark in (DOT, ELLIPSIS, DASH):
        table[mark, mark] = ARRANGE
    return table.ravel()


PAIRS = _pairs()


def whole(texts: Strings) -> pa.StringArray:
    """The column as one array with 32-bit offsets."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    return texts if texts.type == pa.string() else texts.cast(pa.string())


def buffers(texts: pa.StringArray) -> tuple[npt.NDArray[np.int32], Bytes]:
    """Byte offsets (n + 1) and the UTF-8 bytes of an array, without a copy."""
    _, offsets, data = texts.buffers()
    if not len(texts) or offsets is None:
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    own = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return own, np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


@njit(cache=True, nogil=True, inline="always")
def decode(data: Any, i: Any) -> Any:
    """The code point that starts at byte i of valid UTF-8, and its length."""
    at = np.uint64(i)  # numba lets a signed index count from behind, which costs more than the rest
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, 1
    one = np.int64(data[at + np.uint64(1)]) & 63
    if lead < 0xE0:
        return (lead & 31) << 6 | one, 2
    two = np.int64(data[at + np.uint64(2)]) & 63
    if lead < 0xF0:
        return (lead & 15) << 12 | one << 6 | two, 3
    return (lead & 7) << 18 | one << 12 | two << 6 | np.int64(data[at + np.uint64(3)]) & 63, 4


@njit(cache=True, nogil=True)
def _opens(code: Any, after: Any) -> Any:
    """What an ampersand, angle, bracket or backslash may be the start of, by the byte after it."""
    letter = 0x61 <= (after | 0x20) <= 0x7A
    if code == 0x26:
        return MARKUP if letter or after in (0x23, 0x36) else 0  # &lt; &#39; and the bare &65533;
    if code == 0x3C:
        return MARKUP if letter or after in (0x2F, 0x21) else 0
    if code == 0x5B:
        return MARKUP if after in (0x73, 0x53, 0x2F) else 0  # [sub] [/sub]
    return ESCAPE if after in (0x6E, 0x72, 0x74, 0x75) else 0  # \n \r \t \u


@njit(cache=True, nogil=True)
def _closes(last: Any, before: Any) -> Any:
    """Whether a line may end with a link (大图 更多 详情 全文 全部 >>) or an empty field (，无)."""
    if last == 0x65E0:
        return RESIDUE if before in (0x20, 0x2C, 0xFF0C) else 0
    if last in (0x56FE, 0x591A, 0x60C5, 0x6587, 0x90E8):
        return RESIDUE if before in (0x5927, 0x66F4, 0x8BE6, 0x5168, 0x539F) else 0
    return RESIDUE if last in (0x3E, 0xBB, 0x770B, 0x5F00) else 0


@njit(cache=True, nogil=True)
def scan(offsets: Any, data: Any, kind: Any, need: Any, needs: Any) -> None:  # noqa: PLR0912 - one pass for every step
    """Fills in which steps each row needs: the bits above."""
    for row in range(len(needs)):
        i, end = offsets[row], offsets[row + 1]
        found: Any = np.int64(0)
        before: Any = np.int64(START)
        last: Any = np.int64(START)
        code: Any = np.int64(0)
        solid = prior = latin = beyond = han = kana = np.int64(0)
        while i < end:
            code, size = decode(data, i)
            this = np.int64(OTHER)
            if code < LIMIT:
                this = np.int64(kind[code])
                found |= np.int64(need[code])
            else:
                found |= REWRITE
            found |= np.int64(PAIRS[last * 16 + this])
            if code < 0x80:
                if code in (0x26, 0x3C, 0x5B, 0x5C) and i + 1 < end:
                    found |= _opens(code, np.int64(data[i + 1]))
                if code == 0x5D and solid == 0x7EC6:
                    found |= RESIDUE  # [详细]
                if this == BLANK and last == HAN and before == BLANK:
                    found |= ARRANGE  # perhaps letter-spaced
                if code == 0x60 or (last == LINE and this == BLANK and solid in (0x3A, 0x3B, 0x7B)):
                    found |= CODE  # a backtick, or a line indented after one that ends with : ; {
            elif code < 0x100:
                latin += code > 0xA0
            else:
                beyond += 1
                han += this == HAN
                kana += this == KANA
                if (code == 0x51FB and solid == 0x70B9) or (code == 0x5BF9 and solid == 0x662F):
                    found |= RESIDUE  # 点击, 是对
            if this != LINE:
                prior = solid
                solid = code
            elif last != LINE:
                found |= _closes(solid, prior)
            before = last
            last = this
            i += size
        if last in (BLANK, LINE, PAUSE, PAUSE_ASCII):
            found |= ARRANGE
        found |= _closes(solid, prior)
        if latin >= 4 and not beyond:
            found |= GARBLED
        if 20 * kana > han:
            found &= ~SCRIPT  # Japanese
        needs[row] = found


@njit(cache=True, nogil=True)
def rewrite(offsets: Any, data: Any, table: Any, keep_tabs: Any, out: Any, ends: Any) -> None:
    """Every character by its packed form in `table`; `out` has twice the room of the input and eight bytes. Fills all
    but the first of the new offsets.
    """
    o: Any = np.uint64(0)
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            code, size = decode(data, i)
            packed = table[code] if code < LIMIT else np.uint64(0)
            if code == 0x0D and i + 1 < end and data[i + 1] == 0x0A:
                packed = np.uint64(0)  # the line feed speaks for both
            elif code == 0x09 and keep_tabs[row]:
                packed = np.uint64(0x0901)
            length = packed & np.uint64(0xFF)
            for k in range(8):  # one store, however many of them count
                packed >>= np.uint64(8)
                out[o + np.uint64(k)] = packed & np.uint64(0xFF)
            o += length
            i += size
        ends[row + 1] = o


@njit(cache=True, nogil=True)
def census(offsets: Any, data: Any, kind: Any, counts: Any) -> None:
    """Adds to `counts` (n, 16) the characters of each kind in each row."""
    for row in range(len(counts)):
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            code, size = decode(data, i)
            counts[row, kind[code] if code < LIMIT else OTHER] += 1
            i += size


def from_buffers(ends: npt.NDArray[np.int32], data: Bytes) -> pa.StringArray:
    """The array of texts that end at these bytes."""
    return pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(data[: ends[-1]].copy()))


def rewritten(texts: pa.StringArray, table: Table, keep_tabs: npt.NDArray[np.bool_] | None = None) -> pa.StringArray:
    """The texts with every character as `table` has it."""
    offsets, data = buffers(texts)
    out = np.empty(2 * int(offsets[-1] - offsets[0]) + 8, np.uint8)
    keep = np.zeros(len(texts), bool) if keep_tabs is None else keep_tabs
    ends = np.zeros(len(texts) + 1, np.int32)
    rewrite(offsets, data, table, keep, out, ends)
    return from_buffers(ends, out)


def scatter(texts: pa.StringArray, rows: npt.NDArray[np.int64], new: pa.StringArray) -> pa.StringArray:
    """The texts with those at `rows`, in rising order, replaced."""
    if len(rows) in (0, len(texts)):
        return new if len(rows) else texts
    chosen = np.zeros(len(texts), bool)
    chosen[rows] = True
    return pc.replace_with_mask(texts, pa.array(chosen), new)
