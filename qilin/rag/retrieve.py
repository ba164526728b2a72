"""Passages for questions: by BM25, by vectors, or by both, fused by reciprocal rank."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qilin.errors import ModelError, RunError
from qilin.rag.dense import Dense
from qilin.rag.encode import Model, find_encoder
from qilin.rag.index import read_index
from qilin.rag.passages import Passages
from qilin.rag.tokens import fold, tokenizer
from qilin.rag.words import Searcher

Mode = Literal["bm25", "dense", "fusion"]
Ranking = list[tuple[int, float]]  # rows and scores, best first
Found = tuple[NDArray[np.int64], NDArray[np.float32]]

# Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): a passage scores the sum of 1 / (60 + its rank).
RANK = 60
DEPTH = 100  # passages of each part that are fused, at least
SPARE = 8  # more than asked for, so that leaks and ties seldom need a second look


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found. rank: from 1. leaked: whether it holds an evaluation item."""

    id: str
    source: str
    title: str
    text: str
    score: float
    rank: int
    leaked: bool = False


class Retriever:
    """A finished index, opened for questions; files are mapped into memory, an encoder is loaded when first needed.

    device: of the encoder, such as "cuda" or "cpu"; None takes the best. encoder: where the encoder lies now, if not
    where it was when the index was built. Raises RunError: no finished index, another version, damaged.
    """

    def __init__(self, folder: Path, *, device: str | None = None, encoder: str | None = None) -> None:
        content = read_index(folder)
        self.folder, self.digest = folder, str(content["digest"])
        self._files = folder / content["folder"]
        self._device, self._encoder = device, encoder or content["encoder"]
        self._encoder_digest = content["settings"]["encoder"]
        self._passages = Passages(self._files / "passages.arrow")
        self._words = Searcher(self._files / "bm25")
        self._cut = tokenizer(content["settings"]["words"])

    def __len__(self) -> int:
        """How many passages there are, leaked ones too."""
        return len(self._passages)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """How this index can be searched."""
        return ("bm25", "dense", "fusion") if self._encoder_digest else ("bm25",)

    def search(
        self, queries: Sequence[str], k: int = 10, mode: Mode = "bm25", *, leaked: bool = False
    ) -> list[list[Hit]]:
        """The best k passages for each question; fewer where no more have anything in common with it.

        A question is its words and nothing else: no character of it is an operator. Passages of equal score stand in
        the order of the index. leaked: also those that hold an evaluation item. Raises RunError for a mode that the
        index was not built for, ModelError when its encoder is gone or another.
        """
        if mode not in self.modes:
            raise RunError(f"{self.folder} has no vectors for the mode {mode}; build it with --encoder, or use bm25")
        if mode == "bm25":
            found: Iterable[Ranking] = self._bm25(queries, k, leaked)
        elif mode == "dense":
            found = self._dense(queries, k, leaked)
        else:
            depth = max(k, DEPTH)
            both = zip(self._bm25(queries, depth, leaked), self._dense(queries, depth, leaked), strict=True)
            found = (fuse(pair)[:k] for pair in both)
        return [self._hits(ranking) for ranking in found]

    def random(self, names: Sequence[str], k: int = 10, *, seed: int = 0) -> list[list[Hit]]:
        """k passages for each name (the id of an item), drawn by the name and the seed alone; never a leaked one."""
        clean = np.flatnonzero(~self._passages.leaked)
        drawn = []
        for name in names:
            start = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8])
            rows = np.random.default_rng(start).choice(clean, min(k, len(clean)), replace=False)
            drawn.append(self._hits([(int(row), 0.0) for row in rows]))
        return drawn

    def ids(self) -> Iterable[str]:
        """The ids of all passages, in the order of the index."""
        return self._passages.ids()

    def _bm25(self, queries: Sequence[str], k: int, leaked: bool) -> list[Ranking]:
        texts: list[str] = fold(pa.array(queries, pa.string())).to_pylist()
        return [self._best(partial(self._words.search, self._cut(text)), k, leaked) for text in texts]

    def _dense(self, queries: Sequence[str], k: int, leaked: bool) -> list[Ranking]:
        vectors = self._model.queries(queries)
        near = self._vectors.search(vectors, k + SPARE)  # all at once: faiss spreads queries over the cores

        def fetch(number: int, count: int) -> Found:
            return near[number] if count == k + SPARE else self._vectors.search(vectors[[number]], count)[0]

        return [self._best(partial(fetch, number), k, leaked) for number in range(len(queries))]

    def _best(self, fetch: Callable[[int], Found], k: int, leaked: bool) -> Ranking:
        """The best k of an engine that gives the best `count` passages, in an order that hangs on nothing else.

        The engine is asked for more until what it leaves out scores less than the last that is taken.
        """
        count = k + SPARE
        while True:
            rows, scores = fetch(count)
            every = len(rows) < count or count >= len(self)
            keep = slice(None) if leaked else ~self._passages.leaked[rows]
            own, points = rows[keep], scores[keep]
            if every or (len(own) >= k and points[k - 1] > scores[-1]):
                order = np.lexsort((own, -points))[:k]
                return list(zip(own[order].tolist(), points[order].tolist(), strict=True))
            count *= 2

    def _hits(self, ranking: Ranking) -> list[Hit]:
        return [Hit(**self._passages[row], score=score, rank=rank) for rank, (row, score) in enumerate(ranking, 1)]

    @cached_property
    def _vectors(self) -> Dense:
        return Dense(self._files / "dense")

    @cached_property
    def _model(self) -> Model:
        encoder = find_encoder(self._encoder)
        if encoder.digest != self._encoder_digest:
            raise ModelError(
                f"{self.folder} was built with another encoder than {self._encoder}; build it again with it"
            )
        return encoder.load(self._device)


def fuse(rankings: Iterable[Ranking]) -> Ranking:
    """One ranking of several, by reciprocal rank.

    >>> [row for row, _ in fuse([[(7, 9.1), (3, 8.0)], [(3, 0.9), (5, 0.8)]])]
    [3, 7, 5]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (row, _) in enumerate(ranking, 1):
            scores[row] = scores.get(row, 0.0) + 1 / (RANK + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
