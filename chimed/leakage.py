"""Which rows overlap an evaluation set.

An `Index` holds the character grams of folded evaluation texts; `check` gives for every training row the evaluation
text it overlaps most, by how much, and whether that is a leak by the one rule below.

What to index: the question of every item (without its options: sibling items share those), and reference answers. What
to check: every text of a row on its own, the question, each turn, the passage. Half of the questions of Chinese
licensing exams are shorter than 17 characters; so short a question is found where a row's question equals it, not
where a passage happens to contain it. A gram of 8 characters leaves a question of median length 10 grams to match; one
of 13, usual for English words, would leave 5, and a single changed character would take them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from chimed.dedup.minhash import Texts, UInt64, buffers, code_points, exact_keys, gram_hashes, power, room
from chimed.errors import SourceError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

GRAM = 8
# A row leaks an evaluation text if it equals it, or if one of these holds:
SHARE, MIN_GRAMS = 0.8, 10  # most of the text's distinct grams stand in the row, and there are enough of them
WEIGHT = MIN_GRAMS + GRAM - 1  # which so many characters of Chinese give; see `_weight` for others
RUN, RUN_PART = 50, 0.5  # the row repeats that many characters of it in one piece, and that part of its length

WIDE = 0x2E80  # the first code point of Chinese and its neighbours
_ONE, _SIX, _WORD = np.uint64(1), np.uint64(6), np.uint64(63)


@njit(cache=True, nogil=True)
def _leaks(share: float, enough: bool, run: int, length: int) -> bool:
    return (share >= SHARE and enough) or (run >= RUN and run >= RUN_PART * length)


@njit(cache=True, nogil=True)
def _weight(codes: Any, count: int) -> int:
    """How much a text says, in characters: four letters or digits count as one, as a word does in Chinese.

    The English name of a disease stands in many a Chinese passage, and an English question may be little more.
    """
    wide = 0
    for place in range(count):
        wide += codes[place] >= WIDE
    return wide + (count - wide) // 4


@njit(cache=True, nogil=True)
def _grams(offsets: Any, data: Any, room: Any, grams: Any, lengths: Any, weights: Any) -> Any:
    """Fills in of every gram of every text its hash, its place and its text, and returns how many there are; the length
    and the weight of each text.

    Places count on through all texts with a gap of one between texts, so that a run never crosses from one to the next.
    """
    (codes, hashes), (out, places, text) = room, grams
    k = base = 0
    for row in range(len(offsets) - 1):
        length = code_points(data, offsets[row], offsets[row + 1], codes)
        lengths[row] = length
        count = gram_hashes(codes, length, GRAM, hashes, np.int64(0))
        for s in range(count):
            out[k], places[k], text[k] = hashes[s], base + s, row
            k += 1
        base += lengths[row] + 1
        weights[row] = _weight(codes, lengths[row])
    return k


@njit(cache=True, nogil=True)
def _enter(hashes: Any, starts: Any, text: Any, table: Any, words: Any, grams: Any) -> None:
    """Enters grams into an open-addressing table (gram number or -1) and the bits in front of it; adds to `grams` those
    of each text. Table and bits are powers of two.
    """
    slots = np.uint64(len(table))
    for g in range(len(hashes)):
        slot = (hashes[g] >> np.uint64(32)) & (slots - _ONE)
        while table[slot] >= 0:
            slot = (slot + _ONE) & (slots - _ONE)
        table[slot] = g
        words[(hashes[g] >> _SIX) & np.uint64(len(words) - 1)] |= _ONE << (hashes[g] & _WORD)
        for k in range(starts[g], starts[g + 1]):
            grams[text[k]] += k == starts[g] or text[k] != text[k - 1]


@njit(cache=True, nogil=True)
def _lookup(h: Any, words: Any, table: Any, hashes: Any) -> int:
    """The number of a gram, -1 if no evaluation text has it."""
    if not (words[(h >> _SIX) & np.uint64(len(words) - 1)] >> (h & _WORD)) & _ONE:
        return -1
    mask = np.uint64(len(table) - 1)
    slot = (h >> np.uint64(32)) & mask
    while table[slot] >= 0:
        if hashes[table[slot]] == h:
            return table[slot]  # type: ignore[no-any-return]
        slot = (slot + _ONE) & mask
    return -1


@njit(cache=True, nogil=True)
def _extend(places: Any, bounds: Any, before: Any, runs: Any, longer: Any) -> None:
    """Lengths of the runs that end at each posting of a gram, from those of the gram before it: both ascend."""
    k, last = before
    for i in range(bounds[0], bounds[1]):
        while k < last and places[k] < places[i] - 1:
            k += 1
        longer[i - bounds[0]] = 1
        if k < last and places[k] == places[i] - 1:
            longer[i - bounds[0]] = runs[k - before[0]] + 1


@njit(cache=True, nogil=True)
def _check(offsets: Any, data: Any, index: Any, scratch: Any, out: Any) -> None:
    """Fills item, share, run and leak of each row. Scratch arrays are stamped with the row instead of being cleared."""
    (codes, found), runs, longer, seen, met, shared, best_run, touched = scratch
    hashes, starts, places, text, table, words, grams, lengths, weights, owner = index
    item, share, run, leak = out
    for row in range(len(offsets) - 1):
        length = code_points(data, offsets[row], offsets[row + 1], codes)
        count = gram_hashes(codes, length, GRAM, found, np.int64(0))
        before, hits = (0, 0), 0
        for s in range(count):
            g = _lookup(found[s], words, table, hashes)
            if g < 0:
                before = (0, 0)
                continue
            bounds = (starts[g], starts[g + 1])
            _extend(places, bounds, before, runs, longer)
            for i in range(bounds[0], bounds[1]):
                t = text[i]
                if met[t] != row:
                    met[t], shared[t], best_run[t] = row, 0, 0
                    touched[hits] = t
                    hits += 1
                shared[t] += seen[g] != row and (i == bounds[0] or t != text[i - 1])
                best_run[t] = max(best_run[t], longer[i - bounds[0]])
            seen[g] = row
            before, runs, longer = bounds, longer, runs
        for k in range(hits):
            t = touched[k]
            part, length = shared[t] / grams[t], best_run[t] + GRAM - 1
            enough = grams[t] >= MIN_GRAMS and weights[t] >= WEIGHT
            is_leak = _leaks(part, enough, length, lengths[t])
            new, old = (is_leak, np.float32(part), length, -owner[t]), (leak[row], share[row], run[row], -item[row])
            if item[row] < 0 or new > old:
                item[row], share[row], run[row], leak[row] = owner[t], part, length, is_leak


@dataclass(frozen=True, slots=True)
class Hits:
    """The closest evaluation text of each row; arrays of one length.

    item: its owner, -1 if no gram of the row stands in any evaluation text. share: the part of its distinct grams that
    stand in the row. run: characters of the longest common piece, 0 if shorter than a gram. exact: the row equals it.
    leak: the row must not train. A leak wins over none, then the higher share, the longer run, the lower item.
    """

    item: Int32
    share: npt.NDArray[np.float32]
    run: Int32
    exact: npt.NDArray[np.bool_]
    leak: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Index:
    """The grams of evaluation texts: distinct `hashes`, the bounds of the postings of each, and its postings.

    A posting is a place (counted through all texts) and its text. All fields are arrays: it pickles and saves as such.
    """

    hashes: UInt64
    starts: Int64
    places: Int64
    text: Int32
    table: Int32
    words: UInt64
    grams: Int32
    lengths: Int32
    weights: Int32
    owner: Int32
    keys: UInt64
    key_item: Int32
    option_ends: Int64
    option_data: npt.NDArray[np.uint8]

    @classmethod
    def build(
        cls,
        texts: Texts,
        owner: npt.NDArray[np.integer[Any]],
        options: Texts | None = None,
    ) -> "Index":
        """From folded evaluation texts and the number of the item that each belongs to.

        options: of each item, a line each, folded; "" for an item without.

        >>> import pyarrow as pa
        >>> index = Index.build(pa.array(["急性肾小球肾炎患者出现水肿的最主要原因是", "正确的是"]), np.array([0, 1]))
        >>> rows = pa.array(["急性肾小球肾炎患者出现水肿的最主要原因", "下列叙述正确的是", "正确的是"])
        >>> hits = index.check(rows)
        >>> hits.item.tolist(), hits.leak.tolist(), hits.run.tolist()
        ([0, -1, 1], [True, False, True], [19, 0, 4])
        """
        offsets, data = buffers(texts)
        size = int(offsets[-1] - offsets[0])
        found, places, text = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int32)
        lengths, weights = np.empty(len(texts), np.int32), np.empty(len(texts), np.int32)
        count = _grams(offsets, data, room(offsets), (found, places, text), lengths, weights)
        found = found[:count]
        by_hash = np.argsort(found, kind="stable")
        hashes, starts = np.unique(found[by_hash], return_index=True)
        bounds = np.append(starts, len(found)).astype(np.int64)
        grams = np.zeros(len(texts), np.int32)
        places, text = places[by_hash], text[by_hash]
        table = np.full(power(2 * len(hashes)), -1, np.int32)
        words = np.zeros(power(16 * len(hashes)) // 64, np.uint64)  # one gram in 16 of a foreign text passes
        _enter(hashes, bounds, text, table, words, grams)
        items, keys = np.asarray(owner, np.int32), exact_keys(texts)
        by_key = np.lexsort((items, keys[:, 1], keys[:, 0]))
        by_key = by_key[keys[by_key, 0] > 0]
        own = (hashes, bounds, places, text, table, words, grams, lengths, weights, items)
        ends, letters = (np.zeros(1, np.int64), np.zeros(0, np.uint8)) if options is None else buffers(options)
        return cls(*own, keys[by_key], items[by_key], ends.astype(np.int64), letters)

    def check(self, texts: Texts) -> Hits:
        """How each row overlaps the evaluation texts; see `Hits`."""
        offsets, data = buffers(texts)
        n = len(texts)
        item, share, run = np.full(n, -1, np.int32), np.zeros(n, np.float32), np.zeros(n, np.int32)
        leak = np.zeros(n, np.bool_)
        grams = (self.hashes, self.starts, self.places, self.text, self.table, self.words)
        index = (*grams, self.grams, self.lengths, self.weights, self.owner)
        _check(offsets, data, index, self._scratch(offsets), (item, share, run, leak))
        rows, places = self._equal(exact_keys(texts))
        exact = np.zeros(n, np.bool_)
        exact[rows] = leak[rows] = True
        item[rows], share[rows] = self.key_item[places], 1.0
        run[rows] = pc.utf8_length(texts.take(pa.array(rows)))
        return Hits(item, share, run, exact, leak)

    def _scratch(self, offsets: Int64) -> tuple[Any, ...]:
        most, grams, texts = int(np.diff(self.starts).max(initial=1)), len(self.hashes), len(self.grams)
        runs, longer = np.empty(most, np.int32), np.empty(most, np.int32)
        seen, met = np.full(grams, -1, np.int64), np.full(texts, -1, np.int64)
        shared, best_run, touched = np.empty(texts, np.int32), np.empty(texts, np.int32), np.empty(texts, np.int64)
        return room(offsets), runs, longer, seen, met, shared, best_run, touched

    def asked_alike(self, text: Texts, options: Sequence[str]) -> bool:
        """Whether an item with this very question (one text) has an option that is, holds or stands in one of these.

        An item of which no options are known may have any.
        """
        items = self.key_item[(self.keys == exact_keys(text)).all(axis=1)]
        known = [self._options(item) for item in items.tolist()]
        return any(
            not own or any(one in other or other in one for one in own for other in options if other) for own in known
        )

    def _options(self, item: int) -> list[str]:
        if item + 1 >= len(self.option_ends):
            return []
        data = self.option_data[self.option_ends[item] : self.option_ends[item + 1]].tobytes().decode()
        return [line for line in data.split("\n") if line]

    def _equal(self, keys: UInt64) -> tuple[Int64, Int64]:
        """Rows whose 128-bit key is that of an evaluation text, and the first place of it among the sorted keys."""
        if not len(self.keys):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        places = np.searchsorted(self.keys[:, 0], keys[:, 0])
        places[places == len(self.keys)] = 0
        rows = np.flatnonzero((self.keys[places] == keys).all(axis=1))
        return rows, places[rows]

    def save(self, path: Path) -> None:
        """Writes one .npz file of plain arrays."""
        with path.open("wb") as file:
            np.savez(file, gram=np.int64(GRAM), **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Index":
        """Reads what `save` wrote; never unpickles. Raises SourceError for any other file."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
                if int(found["gram"]) != GRAM:
                    raise KeyError("gram")
                return cls(**{f.name: found[f.name] for f in fields(cls)})
        except (KeyError, ValueError, OSError, EOFError, BadZipFile) as fault:
            raise SourceError(f"{path}: not a leakage index of this version ({fault}); build it again") from fault
