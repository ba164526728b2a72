"""Long texts cut into passages, at the ends of sentences where there are any."""

from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from chimed.dedup.minhash import buffers, code_points, longest
from chimed.phrases import Codes

_LEAST = 16  # characters that a part of a longer text has at least


def cut(texts: pa.Array, length: int) -> tuple[pa.Array, Codes]:
    """Texts cut into parts of at most `length` characters: all parts in order, and how many each text gives.

    Joined, the parts of a text are the text. Cuts lie at the end of a paragraph or sentence where there is one, else
    behind a clause, else anywhere. No part of a cut text is shorter than 16 characters, or half of a shorter `length`.

    >>> cut(pa.array(["百日咳多见于小儿。病程较长，可达数月。"]), 12)[0].to_pylist()
    ['百日咳多见于小儿。', '病程较长，可达数月。']
    """
    offsets, data = buffers(texts)
    least = max(1, min(_LEAST, length // 2))
    cuts = np.empty((offsets[-1] - offsets[0]) // least + len(texts) + 1, np.int32)
    counts = np.zeros(len(texts), np.int64)
    total = _cuts(offsets, data, np.array([length, least]), cuts, counts)
    return pa.StringArray.from_buffers(total, pa.py_buffer(cuts[: total + 1].copy()), pa.py_buffer(data)), counts


_CLAUSE, _SENTENCE, _PARAGRAPH = 1, 2, 3
_KINDS = np.zeros(1 << 16, np.int8)  # of characters: what ends behind them; -1 what goes with the character before
for _mark, _kind in (("，、；：,;: ", _CLAUSE), ("。！？!?…", _SENTENCE), ("\n", _PARAGRAPH), ("”’」』）)]】》〉", -1)):
    _KINDS[[ord(character) for character in _mark]] = _kind


@njit(cache=True, nogil=True)
def _ends(codes: Any, count: int, kinds: Any, ends: Any) -> None:
    """Writes into ends[i] what ends between character i - 1 and i: 0 for nothing."""
    before = 0
    for i in range(count):
        kind = kinds[codes[i]] if codes[i] < 65536 else 0
        # A closing mark or a second stop belongs to what it follows.
        ends[i] = 0 if kind != 0 else before
        if kind > 0:
            before = max(before, kind)
        elif kind == 0:
            before = 0
    ends[count] = before


@njit(cache=True, nogil=True)
def _best(ends: Any, low: int, high: int) -> int:
    """Where to cut in low … high: at a paragraph in the second half, the last sentence, the last clause, the end."""
    sentence = clause = 0
    for place in range(high, low - 1, -1):
        kind = ends[place]
        if kind == 3 and place >= (low + high) // 2:
            return place
        if kind >= 2 and sentence == 0:
            sentence = place
        if kind == 1 and clause == 0:
            clause = place
    return sentence if sentence else clause if clause else high


@njit(cache=True, nogil=True)
def _cuts(offsets: Any, data: Any, limits: Any, cuts: Any, counts: Any) -> int:
    """Fills `cuts` with the byte offsets where parts begin, and the end; returns the number of parts."""
    length, least = limits
    codes = np.empty(longest(offsets), np.uint32)
    ends = np.zeros(len(codes) + 1, np.int8)
    total = 0
    for row in range(len(offsets) - 1):
        count = code_points(data, offsets[row], offsets[row + 1], codes)
        _ends(codes, count, _KINDS, ends)
        start, byte = 0, offsets[row]
        while True:
            cuts[total] = byte
            total += 1
            counts[row] += 1
            if count - start <= length:
                break
            stop = _best(ends, start + least, start + min(length, count - start - least))
            for i in range(start, stop):
                code = codes[i]
                byte += 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
            start = stop
    cuts[total] = offsets[-1]
    return total
