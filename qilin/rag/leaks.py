"""Passages that hold evaluation items: what must not be retrieved when those items are scored.

`chimed build` keeps leaks out of every stage that it writes; an index may be asked about items of another build, so it
is checked anew. A text of an item (its question, the reference answer of an open one, its explanation) leaks into a
passage that holds at least 80 % of the distinct 13-grams of its folded characters. A text shorter than that leaks into
a passage that is nothing else, and the question of an open item into one that has it as its title: an answer to it.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qilin.rag.tokens import fold

GRAM = 13
SHARE = 0.8
WHAT = ("question", "answer", "explanation")

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_TABLE = 26  # bits of a hash that decide whether it is looked up at all
_PAIRS = 1 << 22  # of a passage and a text of an item that are counted at once


class Leak(NamedTuple):
    """A text of an evaluation item, and the share of its grams that a passage holds."""

    item: str
    what: str
    share: float


class Leaks:
    """The texts of evaluation items, looked for in passages.

    >>> question = "下列关于百日咳痉咳期的临床表现，说法错误的是"
    >>> items = pa.table({"id": ["cmexam/1"], "kind": ["exam"], "question": [question], "answer": ["B"]})
    >>> found = Leaks([items]).find(pa.array(["", ""]), pa.array(["百日咳多见于小儿。", f"题目：{question}？选B。"]))
    >>> found
    {1: Leak(item='cmexam/1', what='question', share=1.0)}
    """

    def __init__(self, items: Iterable[pa.Table]) -> None:
        ids: list[str] = []
        folded: list[pa.Array] = []
        self._what: list[str] = []
        self._open: list[bool] = []  # whether it is the question of an open item
        for table in items:
            for what in WHAT:
                own = _texts(table, what)
                ids += own["id"].to_pylist()
                folded.append(_solid(own["text"].combine_chunks()))
                self._what += [what] * len(own)
                self._open += pc.and_(pc.equal(own["kind"], "open"), what == "question").to_pylist()
        self._ids = ids
        texts = pa.concat_arrays(folded) if folded else pa.array([], pa.string())
        short = [(text, place) for place, text in enumerate(texts.to_pylist()) if 0 < len(text) < GRAM]
        self._short = dict(reversed(short))
        self._asked = {text: place for text, place in self._short.items() if self._open[place]}
        hashes, owners = _grams(texts)
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        new = np.append(True, (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1]))[: len(hashes)]
        hashes, self._owners = hashes[new], owners[new]
        self._counts = np.bincount(self._owners, minlength=len(texts))
        self._hashes, starts = np.unique(hashes, return_index=True)
        self._starts = np.append(starts, len(hashes))
        self._table = np.zeros(1 << _TABLE, np.bool_)
        self._table[_slot(self._hashes)] = True

    def find(self, titles: pa.Array, texts: pa.Array) -> dict[int, Leak]:
        """The leak of each passage that has one, by its row: a question before an answer, then the largest share."""
        found: dict[int, list[tuple[int, float]]] = {}
        solid = _solid(texts)
        for column, known in ((_solid(titles), self._asked), (solid, self._short)):
            for row, text in enumerate(column.to_pylist()):
                if (place := known.get(text)) is not None:
                    found.setdefault(row, []).append((place, 1.0))
        for rows, places, shares in self._shared(solid):
            for row, place, share in zip(rows.tolist(), places.tolist(), shares.tolist(), strict=True):
                found.setdefault(row, []).append((place, share))
        return {row: self._first(leaks) for row, leaks in sorted(found.items())}

    def _first(self, leaks: list[tuple[int, float]]) -> Leak:
        place, share = min(leaks, key=lambda leak: (WHAT.index(self._what[leak[0]]), -leak[1], self._ids[leak[0]]))
        return Leak(self._ids[place], self._what[place], round(share, 4))

    def _shared(self, texts: pa.Array) -> Iterator[tuple[Places, Places, NDArray[np.float64]]]:
        """Passage, text of an item and share of its grams, where that is enough."""
        hashes, rows = _grams(texts)
        hit = self._table[_slot(hashes)]
        hashes, rows = hashes[hit], rows[hit]
        place = np.searchsorted(self._hashes, hashes)
        same = place < len(self._hashes)
        same[same] = self._hashes[place[same]] == hashes[same]
        pairs = np.unique(np.stack([rows[same], place[same]]), axis=1)
        if not pairs.size:
            return
        sizes = np.diff(self._starts)[pairs[1]]
        # Whole passages at a time, so that the pairs that are counted fit into memory.
        ends = np.flatnonzero(np.append(pairs[0][1:] != pairs[0][:-1], True)) + 1
        group = np.cumsum(sizes)[ends - 1] // _PAIRS
        cuts = ends[np.append(group[1:] != group[:-1], True)]
        for begin, end in zip([0, *cuts[:-1].tolist()], cuts.tolist(), strict=True):
            yield self._counted(pairs[:, begin:end], sizes[begin:end])

    def _counted(self, pairs: Places, sizes: Places) -> tuple[Places, Places, NDArray[np.float64]]:
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        owners = self._owners[np.repeat(self._starts[pairs[1]], sizes) + within]
        key, shared = np.unique(np.repeat(pairs[0], sizes) * len(self._ids) + owners, return_counts=True)
        rows, places = np.divmod(key, len(self._ids))
        shares = shared / self._counts[places]
        enough = shares >= SHARE
        return rows[enough], places[enough], shares[enough]


def _texts(table: pa.Table, what: str) -> pa.Table:
    """The ids, kinds and texts of one sort; the answer of an exam item is its letters, no text."""
    if what == "answer":
        table = table.filter(pc.equal(table["kind"], "open"))
    texts = table[what] if what in table.column_names else pa.repeat("", len(table))
    return pa.table({"id": table["id"], "kind": table["kind"], "text": texts})


def _solid(texts: pa.Array) -> pa.Array:
    """Folded texts without blanks."""
    return pc.replace_substring(fold(texts), " ", "")


def _grams(texts: pa.Array) -> tuple[Hashes, Places]:
    """The hash of every 13-gram of every text, and the number of its text; grams do not reach from one to the next."""
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    codes = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    count = max(len(codes) - GRAM + 1, 0)
    hashes = np.zeros(count, np.uint64)
    for place in range(GRAM):
        hashes *= _MULTIPLIER
        hashes += codes[place : place + count]
    hashes ^= hashes >> np.uint64(29)
    ends = np.cumsum(lengths)
    owners = np.repeat(np.arange(len(lengths)), lengths)[:count]
    inside = np.arange(count) + GRAM <= ends[owners]
    return hashes[inside], owners[inside]


def _slot(hashes: Hashes) -> Places:
    return (hashes >> np.uint64(64 - _TABLE)).astype(np.int64)
