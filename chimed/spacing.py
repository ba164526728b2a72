"""Blanks, line ends and repeated marks of Chinese text, set in order by one compiled pass.

The rules, all of which leave a text alone that follows them already:

- no blank at the ends of a text or line, no two in a row, none beside wide punctuation; at most one empty line;
- one blank between Han words stays, for it parts entries of a list (桔梗 川芎 白芍), unless at least three single
  characters follow each other so: that is letter-spaced print (目 录 表);
- no stray mark before a text, no hanging comma after it;
- of neighbouring marks the one that weighs most stays: ！！！ is ！ and 。， is 。; only ？！ and ！？ are two;
- three dots or more are …… after Chinese and ... elsewhere; …… and —— are as long as that.
"""

from typing import Any

import numpy as np
from numba import njit

from chimed.characters import (
    BLANK,
    DASH,
    DOT,
    ELLIPSIS,
    HAN,
    LETTER,
    LIMIT,
    LINE,
    OTHER,
    PAUSE,
    PAUSE_ASCII,
    START,
    STOP,
    STOP_ASCII,
    WIDE,
    decode,
)

_SKIP, _REPLACE, _APPEND = range(3)
_COLON = 0xFF1A  # ：


@njit(cache=True, nogil=True, inline="always")
def _kind(code: Any, kind: Any) -> Any:
    return np.int64(kind[code]) if code < LIMIT else np.int64(OTHER)


@njit(cache=True, nogil=True)
def _weight(code: Any) -> Any:
    """How much a mark weighs: pauses 1 to 3, stops 4 to 6."""
    if code == 0x3001:  # 、
        return 1
    if code in (0x2C, 0xFF0C):  # , ，
        return 2
    if code in (0x3B, 0xFF1B):  # ; ；
        return 3
    if code == 0x3002:  # 。
        return 4
    return 5 if code in (0x21, 0xFF01) else 6  # ! ！ and ? ？


@njit(cache=True, nogil=True)
def _meet(first: Any, second: Any, after_stop: Any) -> Any:
    """What becomes of a mark that follows another one."""
    a, b = _weight(first), _weight(second)
    if a < 5 or b < 5:
        return _REPLACE if b > a else _SKIP
    return _SKIP if a == b or after_stop else _APPEND


@njit(cache=True, nogil=True)
def _singles(data: Any, i: Any, end: Any, kind: Any) -> Any:
    """How many tokens of a single Han character follow from byte i on, counted up to two."""
    found = 0
    while i < end and found < 2:
        code, size = decode(data, i)
        if _kind(code, kind) != HAN:
            break
        i += size
        gap = False
        while i < end and data[i] == 0x20:
            i += 1
            gap = True
        if i < end and not gap:
            code, size = decode(data, i)
            if _kind(code, kind) not in (LINE, PAUSE, STOP, WIDE):
                break
        found += 1
    return found


@njit(cache=True, nogil=True)
def _run(data: Any, i: Any, end: Any, o: Any, out: Any, spot: Any) -> Any:
    """Write a run of dots, … or — in its proper length; returns where reading and writing go on.

    `spot` is the kind of the character before it.
    """
    code, size = decode(data, i)
    start = i
    while i < end and data[i] == data[start]:
        same, _ = decode(data, i)
        if same != code:
            break
        i += size
    count = (i - start) // size
    if code == 0x2E and (count >= 6 or (count >= 3 and spot in (HAN, PAUSE, STOP, WIDE))):
        for byte in (0xE2, 0x80, 0xA6, 0xE2, 0x80, 0xA6):
            out[o] = byte
            o += 1
        return i, o
    for k in range(size * min(count, 3 if code == 0x2E else 2)):
        out[o] = data[start + k]
        o += 1
    return i, o


@njit(cache=True, nogil=True)
def _trim(out: Any, start: Any, o: Any) -> Any:
    """Where the text that begins at `start` ends without blanks and hanging commas."""
    while o > start:
        if out[o - 1] in (0x20, 0x0A, 0x2C):
            o -= 1
        elif o - start >= 3 and (
            (out[o - 3] == 0xEF and out[o - 2] == 0xBC and out[o - 1] == 0x8C)  # ，
            or (out[o - 3] == 0xE3 and out[o - 2] == 0x80 and out[o - 1] == 0x81)  # 、
        ):
            o -= 3
        else:
            break
    return o


@njit(cache=True, nogil=True, inline="always")
def _copy(data: Any, i: Any, size: Any, out: Any, o: Any) -> None:
    source, target = np.uint64(i), np.uint64(o)  # unsigned: see `decode`
    for k in range(np.uint64(size)):
        out[target + k] = data[source + k]


@njit(cache=True, nogil=True)
# One loop, however long: a call for each character makes it ten times slower.
def _row(data: Any, i: Any, end: Any, kind: Any, out: Any, o: Any) -> Any:  # noqa: PLR0912, PLR0915
    """Arrange one text; returns where it ends in `out`."""
    start = at = o
    before = last = np.int64(START)
    mark = np.int64(0)  # the last code point written
    lines = gap = word = singles = 0
    while i < end:
        code, size = decode(data, i)
        this = _kind(code, kind)
        if this <= LETTER and o > start and not (gap or lines):  # nearly every character: the rest would do the same
            _copy(data, i, size, out, o)
            i, o = i + size, o + size
            before, last, word = last, this, word + 1
            continue
        if this in (BLANK, LINE):
            gap |= this == BLANK
            lines += this == LINE
            i += size
            continue
        stray = this in (PAUSE, STOP, PAUSE_ASCII) or code == _COLON
        if o == start:
            lines = gap = 0
            if stray:
                i += size
                continue
        if lines:
            for _ in range(min(lines, 2)):
                out[o] = 0x0A
                o += 1
            before, last, word, singles = last, np.int64(LINE), 0, 0
        elif gap and last not in (PAUSE, STOP, WIDE) and this not in (PAUSE, STOP, WIDE):
            singles = singles + 1 if word == 1 and last == HAN else 0
            word = 0
            if not (singles and this == HAN and singles + _singles(data, i, end, kind) >= 3):
                out[o] = 0x20
                o += 1
                before, last = last, np.int64(BLANK)
        lines = gap = 0
        pause = this in (PAUSE, STOP, PAUSE_ASCII, STOP_ASCII)
        if pause and last in (PAUSE, STOP, PAUSE_ASCII, STOP_ASCII):
            verdict = _meet(mark, code, before in (STOP, STOP_ASCII))
            if verdict == _SKIP:
                i += size
                continue
            if verdict == _REPLACE:
                o, last = at, before
        at = o
        if this in (DOT, ELLIPSIS, DASH):
            i, o = _run(data, i, end, o, out, last)
        else:
            _copy(data, i, size, out, o)
            i, o = i + size, o + size
        before, last, mark = last, this, code
        if this in (PAUSE, STOP, WIDE):
            word = singles = 0
        else:
            word += 1
    return _trim(out, start, o)


@njit(cache=True, nogil=True)
def arrange(offsets: Any, data: Any, kind: Any, out: Any, ends: Any) -> None:
    """Arrange every row; `out` has twice the room of the input. Fills all but the first of the new offsets."""
    o = np.int64(0)  # of one type all along: for each new one numba compiles what is called anew
    for row in range(len(offsets) - 1):
        o = _row(data, np.int64(offsets[row]), np.int64(offsets[row + 1]), kind, out, o)
        ends[row + 1] = o
