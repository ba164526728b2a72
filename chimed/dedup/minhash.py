"""Shingle kernels: exact keys, MinHash bands and exact Jaccard similarity of folded texts.

Everything here reads the buffers of Arrow strings directly and makes no Python object a row. A text is the set of its
distinct character 5-grams (Unicode code points). A text shorter than that is one shingle, itself, so that two short
texts are alike only if they are equal; an empty text has no shingle and is like nothing, not even another empty text.

Shingles are compared by a 64-bit hash: two texts of a thousand shingles confuse one pair of them with a chance of
about 5e-14, and one confused pair moves their similarity by a thousandth.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

Texts: TypeAlias = pa.StringArray | pa.LargeStringArray
UInt64 = npt.NDArray[np.uint64]

SHINGLE = 5
PERMUTATIONS = 128
BANDS = 14
ROWS = 5  # rows a band; 14 x 5 finds a pair at Jaccard .8 with a chance of .996, and candidates are verified anyway

_BASE = np.uint64(0x9E3779B97F4A7C15)
_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_MIX1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX2 = np.uint64(0xC4CEB9FE1A85EC53)
_LANE1 = np.uint64(0x87C37B91114253D5)
_LANE2 = np.uint64(0x4CF5AD432745937F)
STRIDE = 64  # code points of a text that are read before it is asked whether more are of use
_S23, _S31, _S33, _S41 = np.uint64(23), np.uint64(31), np.uint64(33), np.uint64(41)
_SHORT = np.uint64(0x110000)  # beyond every code point: a short text is never the tail of a 5-gram
_NONE32 = np.uint32(0xFFFFFFFF)


def buffers(texts: Texts) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Byte offsets (n + 1) and UTF-8 bytes of an Arrow string array; a null counts as the empty text."""
    if texts.null_count:
        texts = pc.fill_null(texts, "")
    wide = pa.types.is_large_string(texts.type)
    _, offsets, data = texts.buffers()
    raw = np.frombuffer(data if data is not None else b"", np.uint8)  # always read-only: numba compiles for it once
    if len(texts) == 0 or offsets is None:
        return np.zeros(1, np.int64), raw
    found = np.frombuffer(offsets, np.int64 if wide else np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return found.astype(np.int64), raw


@njit(cache=True, nogil=True)
def mix(h: Any) -> Any:
    """The 64-bit finaliser of MurmurHash3: every input bit reaches every output bit."""
    h = (h ^ (h >> _S33)) * _MIX1
    h = (h ^ (h >> _S33)) * _MIX2
    return h ^ (h >> _S33)


@njit(cache=True, nogil=True)
def _decode(data: Any, i: Any, end: Any, out: Any, k: Any, most: Any) -> Any:
    """Decodes valid UTF-8 from byte `i` on into `out[k:most]`; returns the byte and the place it came to.

    All of them are uint64: numba lets a signed index count from behind.
    """
    while i < end and k < most:
        b = np.uint32(data[i])
        if 0xE0 <= b < 0xF0:  # Han characters come first: they are nearly everything
            tail = ((np.uint32(data[i + _ONE]) & 0x3F) << 6) | (np.uint32(data[i + _TWO]) & 0x3F)
            out[k] = ((b & 0x0F) << 12) | tail
            i += _THREE
        elif b < 0x80:
            out[k] = b
            i += _ONE
        elif b < 0xE0:
            out[k] = ((b & 0x1F) << 6) | (np.uint32(data[i + _ONE]) & 0x3F)
            i += _TWO
        else:
            high = ((b & 0x07) << 18) | ((np.uint32(data[i + _ONE]) & 0x3F) << 12)
            tail = ((np.uint32(data[i + _TWO]) & 0x3F) << 6) | (np.uint32(data[i + _THREE]) & 0x3F)
            out[k] = high | tail
            i += np.uint64(4)
        k += _ONE
    return i, k


@njit(cache=True, nogil=True)
def code_points(data: Any, start: int, stop: int, out: Any) -> int:
    """Decodes valid UTF-8 bytes into `out`; returns how many code points there are."""
    return int(_decode(data, np.uint64(start), np.uint64(stop), out, np.uint64(0), np.uint64(len(out)))[1])


@njit(cache=True, nogil=True)
def gram_hashes(codes: Any, count: Any, size: int, out: Any, first: Any) -> Any:
    """Writes the 64-bit hash of every gram of `size` code points from place `first` on; returns how many grams there
    are up to `count` code points: 0 for a short text.

    first: np.int64, a constant too, or numba compiles all anew for the type of each constant.
    """
    if count < first + size:
        return max(count - size + 1, 0)
    top = _ONE
    for _ in range(size):
        top = top * _BASE
    h = np.uint64(0)
    for i in range(first, first + size):
        h = h * _BASE + np.uint64(codes[i])
    out[first] = mix(h)
    for i in range(np.uint64(first), np.uint64(count - size)):
        # The old hash times the base is what the next step waits for: the rest is summed beside it.
        h = h * _BASE + (np.uint64(codes[i + np.uint64(size)]) - np.uint64(codes[i]) * top)
        out[i + _ONE] = mix(h)
    return count - size + 1


@njit(cache=True, nogil=True)
def _shingles(data: Any, stop: Any, reached: Any, most: Any, room: Any) -> Any:
    """Reads a text on, up to `most` code points: those into the first array of `room`, the shingles that they complete
    into the second. reached: its byte, code points and shingles until here; what comes back is that as it is then.
    """
    (codes, hashes), (at, known, seen) = room, reached
    at, known = _decode(data, at, stop, codes, known, most)
    if known >= SHINGLE or not known:
        return at, known, gram_hashes(codes, known, SHINGLE, hashes, seen)
    h = _SHORT
    for i in range(known):
        h = h * _BASE + np.uint64(codes[i])
    hashes[0] = mix(h)
    return at, known, 1


@njit(cache=True, nogil=True)
def longest(offsets: Any) -> int:
    """Bytes in the longest text: no text has more code points than that."""
    most = 1
    for i in range(len(offsets) - 1):
        most = max(most, offsets[i + 1] - offsets[i])
    return most


@njit(cache=True, nogil=True)
def _sketch(offsets: Any, data: Any, permutations: Any, scratch: Any, signatures: Any, bands: Any) -> None:
    """Fills `signatures` (n, P) and `bands` (n, B); one with no rows is left out, so that one compilation serves both.

    The inner loop runs over permutations, four shingles at a time: it vectorises on 32 bits for short texts too.
    """
    multipliers, addends = permutations
    codes, hashes, low, least = scratch
    width, most = len(multipliers), np.uint64(len(codes))
    for row in range(len(offsets) - 1):
        start, stop = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        count = _shingles(data, stop, (start, np.uint64(0), np.int64(0)), most, (codes, hashes))[2]
        for s in range(count):
            low[s] = np.uint32(hashes[s] >> np.uint64(32))
        for s in range(count, count + 3):
            low[s] = low[0]
        for p in range(width):  # assigning a slice costs a second of compilation, for the words of its error
            least[p] = _NONE32
        for s in range(0, count, 4):
            h0, h1, h2, h3 = low[s], low[s + 1], low[s + 2], low[s + 3]
            for p in range(width):
                # uint32 times uint32 is uint64 in numba: cut each back, or the loop runs at half the width.
                a, b = multipliers[p], addends[p]
                v0, v1 = np.uint32(a * h0 + b), np.uint32(a * h1 + b)
                v2, v3 = np.uint32(a * h2 + b), np.uint32(a * h3 + b)
                first, second = min(v0, v1), min(v2, v3)
                least[p] = min(least[p], first, second)
        if len(signatures):
            for p in range(width):
                signatures[row, p] = least[p]
        if len(bands):
            for band in range(bands.shape[1]):
                key = np.uint64(0)
                for p in range(band * ROWS, band * ROWS + ROWS):
                    key = mix(key * _BASE + np.uint64(least[p]) + _ONE)
                bands[row, band] = max(key, _ONE) if count else np.uint64(0)


@njit(cache=True, nogil=True)
def _exact(offsets: Any, data: Any, out: Any) -> None:
    """Two hashes of the bytes with different constants and rotations, eight bytes a step, the length mixed in last."""
    for row in range(len(offsets) - 1):
        i, stop = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        length = stop - i
        if length == 0:
            out[row, 0] = out[row, 1] = 0
            continue
        one, two = _LANE1, _LANE2
        while i < stop:
            word = np.uint64(0)
            if i + np.uint64(8) <= stop:
                for k in range(np.uint64(8)):  # one load
                    word |= np.uint64(data[i + k]) << (k << _THREE)
            else:
                for k in range(stop - i):
                    word |= np.uint64(data[i + k]) << (k << _THREE)
            first, second = one ^ (word * _MIX1), two ^ (word * _MIX2)
            one = ((first << _S31) | (first >> _S33)) * _LANE1
            two = ((second << _S41) | (second >> _S23)) * _LANE2
            i += np.uint64(8)
        out[row, 0] = max(mix(one ^ length), _ONE)
        out[row, 1] = max(mix(two + length), _ONE)


@njit(cache=True, nogil=True)
def _add(keys: Any, mask: Any, key: Any) -> bool:
    """Puts `key`, which is not 0, into an open-addressing set of non-zero keys; says whether it is new."""
    slot = key & mask
    while keys[slot]:
        if keys[slot] == key:
            return False
        slot = (slot + _ONE) & mask
    keys[slot] = key
    return True


@njit(cache=True, nogil=True)
def _find(keys: Any, mask: Any, key: Any) -> Any:
    """The slot of `key`, or -1."""
    slot = key & mask
    while keys[slot]:
        if keys[slot] == key:
            return np.int64(slot)
        slot = (slot + _ONE) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _mask(count: Any) -> Any:
    size = np.uint64(16)
    while size < np.uint64(2 * count):
        size *= np.uint64(2)
    return size - _ONE


@njit(cache=True, nogil=True)
def _clear(keys: Any, mask: Any) -> None:
    for slot in range(mask + _ONE):
        keys[slot] = np.uint64(0)


@njit(cache=True, nogil=True)
def _jaccard(offsets: Any, data: Any, pairs: Any, least: float, scratch: Any, out: Any) -> None:
    """One hash table for the left text, kept while `left` stays the same, one for what only the right text has.

    No more than the left text is shared, so a pair is given up once too many shingles are the right text's own: most
    candidates are unlike, and of those only a part of the right text is read.
    """
    (left, right), (room, ours, theirs, met) = pairs, scratch
    codes, hashes = room
    left_count, left_mask, most = 0, _ONE, np.int64(0)
    for pair in range(len(left)):
        if pair == 0 or left[pair] != left[pair - 1]:
            at, stop = np.uint64(offsets[left[pair]]), np.uint64(offsets[left[pair] + 1])
            count = _shingles(data, stop, (at, np.uint64(0), np.int64(0)), np.uint64(len(codes)), room)[2]
            left_count, left_mask = 0, _mask(count)
            _clear(ours, left_mask)
            for s in range(count):
                left_count += _add(ours, left_mask, max(hashes[s], _ONE))
            most = np.int64(left_count / max(least, 1e-9)) - left_count + 1  # one to spare for rounding
        at, stop = np.uint64(offsets[right[pair]]), np.uint64(offsets[right[pair] + 1])
        right_mask = _mask(min(np.int64(stop - at), most + STRIDE))
        _clear(theirs, right_mask)
        known, seen, shared, extra = np.uint64(0), np.int64(0), 0, 0
        while at < stop and extra <= most:
            before = seen
            at, known, seen = _shingles(data, stop, (at, known, seen), known + np.uint64(STRIDE), room)
            for s in range(before, seen):
                slot = _find(ours, left_mask, max(hashes[s], _ONE))
                if slot < 0:
                    extra += _add(theirs, right_mask, max(hashes[s], _ONE))
                elif met[slot] != pair:
                    met[slot] = pair
                    shared += 1
        alike = shared / max(left_count + extra, 1)
        out[pair] = alike if extra <= most and alike >= least else 0.0


def power(least: int) -> int:
    """The first power of two from `least` on, 64 or more."""
    return 1 << max(6, (least - 1).bit_length())


def room(offsets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint32], UInt64]:
    """Room for the code points and the shingles of the longest text. Kernels get all their arrays from Python: to make
    one of each type there takes numba a second to compile.
    """
    size = int(np.diff(offsets).max(initial=1))
    return np.empty(size, np.uint32), np.empty(size, np.uint64)


def _permutations(count: int, seed: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Odd multipliers and addends from splitmix64: the same on every platform and numpy version."""
    state = (np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 20)) * _BASE
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    draws = ((z ^ (z >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
    return draws[:count] | np.uint32(1), draws[PERMUTATIONS : PERMUTATIONS + count]


def exact_keys(texts: Texts) -> UInt64:
    """A 128-bit key a text, shape (n, 2): equal texts have equal keys; an empty text has (0, 0), which matches nothing.

    >>> keys = exact_keys(pa.array(["高血压", "高血压", "低血压", ""]))
    >>> (keys[0] == keys[1]).all(), (keys[0] == keys[2]).any(), keys[3].tolist()
    (np.True_, np.False_, [0, 0])
    """
    offsets, data = buffers(texts)
    out = np.empty((len(texts), 2), np.uint64)
    _exact(offsets, data, out)
    return out


def band_keys(texts: Texts, *, seed: int = 0) -> UInt64:
    """Locality-sensitive keys, shape (n, 14): texts that share a key in one column are candidates for near-duplicates.

    70 of the MinHash values (14 bands of 5 rows). An empty text has 0 in every column: no key, it meets nobody.

    >>> text = "百日咳是由百日咳杆菌所致的急性呼吸道传染病"
    >>> keys = band_keys(pa.array([text, text + "症"]))
    >>> keys.shape, bool((keys[0] == keys[1]).any())
    ((2, 14), True)
    """
    out = np.empty((len(texts), BANDS), np.uint64)
    _sketched(texts, BANDS * ROWS, seed, np.empty((0, BANDS * ROWS), np.uint32), out)
    return out


def signatures(texts: Texts, *, seed: int = 0) -> npt.NDArray[np.uint32]:
    """MinHash signatures, shape (n, 128): equal places of two rows over 128 estimate their Jaccard similarity.

    They load into `datasketch.LeanMinHash(seed=seed, hashvalues=row, scheme="affine32")`, datasketch 2.0 or later. The
    first 70 values are those of `band_keys`.

    >>> signatures(pa.array(["流行性感冒病毒", "流行性感冒病毒"])).std(axis=0).any()
    np.False_
    """
    out = np.empty((len(texts), PERMUTATIONS), np.uint32)
    _sketched(texts, PERMUTATIONS, seed, out, np.empty((0, BANDS), np.uint64))
    return out


def _sketched(texts: Texts, count: int, seed: int, signatures: npt.NDArray[np.uint32], bands: UInt64) -> None:
    offsets, data = buffers(texts)
    codes, hashes = room(offsets)
    low, least = np.empty(len(codes) + 3, np.uint32), np.empty(count, np.uint32)
    _sketch(offsets, data, _permutations(count, seed), (codes, hashes, low, least), signatures, bands)


def jaccard(
    texts: Texts, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], *, least: float = 0.0
) -> npt.NDArray[np.float64]:
    """The Jaccard similarity of the distinct shingles of `texts[left[i]]` and `texts[right[i]]`, for every i.

    Fastest when equal values of `left` stand together. Zero where both texts are empty, and where it is below `least`:
    texts are not read further once that is clear.

    >>> jaccard(pa.array(["abcdefgh", "abcdefg"]), np.array([0]), np.array([1])).tolist()
    [0.75]
    """
    offsets, data = buffers(texts)
    out = np.empty(len(left), np.float64)
    ones, others = np.ascontiguousarray(left, np.int64), np.ascontiguousarray(right, np.int64)
    own = room(offsets)
    slots = int(_mask(len(own[0]) + STRIDE)) + 1
    scratch = own, np.empty(slots, np.uint64), np.empty(slots, np.uint64), np.full(slots, -1, np.int32)
    _jaccard(offsets, data, (ones, others), float(least), scratch, out)
    return out
