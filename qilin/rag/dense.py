"""Vectors of passages: encoded in shards that survive a kill, searched with faiss from a memory-mapped file.

A vector belongs to a text, not to a row: what an earlier build or an interrupted one has encoded is not encoded again.
Vectors are kept in 16 bits. Up to a million passages every vector is compared; beyond that those of the nearest cells.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qilin.errors import RunError
from qilin.rag.tokens import missing

Keys = NDArray[np.bytes_]  # S16: what `keys` makes
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
Step = Callable[[int, int], None]

FLAT = 1_000_000  # passages up to which every vector is compared; also those of one file
PROBES = 1 / 32  # of the cells, how many are looked into
SHARD = 1024  # texts that are encoded before they are written
_BLOCK = 1 << 16
_SAMPLE = 64  # vectors a cell that cells are learned from


class Encodes(Protocol):
    """What turns texts into vectors, a row each."""

    def documents(self, texts: Sequence[str]) -> Vectors: ...


def keys(texts: Sequence[str]) -> Keys:
    """128 bits a text that stand for it.

    >>> keys(["百日咳", "感冒", "百日咳"])[[0, 2]].tolist() == keys(["百日咳"] * 2).tolist()
    True
    """
    # A last byte that is not zero: numpy takes trailing zeros for padding.
    return np.array([hashlib.blake2b(text.encode(), digest_size=15).digest() + b"." for text in texts], "S16")


class Store:
    """Vectors by the key of their text: those of an earlier index, and those in the shards of a folder."""

    def __init__(self, folder: Path, earlier: "tuple[Keys, Dense] | None" = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._earlier = earlier[1] if earlier else None
        self._parts: list[Keys] = [earlier[0] if earlier else np.zeros(0, "S16")]
        self._shards: list[NDArray[np.float16]] = []
        for path in sorted(folder.glob("*.vectors.npy")):
            self._take(path)
        self._sort()

    def _take(self, path: Path) -> None:
        self._shards.append(np.load(path, mmap_mode="r"))
        self._parts.append(np.load(path.with_name(path.name.replace("vectors", "keys"))))

    def _sort(self) -> None:
        everything = np.concatenate(self._parts)
        self._order = np.argsort(everything, kind="stable")
        self._sorted = everything[self._order]
        self._starts = np.cumsum([0, *map(len, self._parts)])

    def lacks(self, wanted: Keys) -> NDArray[np.bool_]:
        """Which keys have no vector yet."""
        return ~np.isin(wanted, self._sorted)

    def fill(self, wanted: Rows, texts: Callable[[Rows], list[str]], model: Encodes, step: Step) -> None:
        """Encode the texts of these rows, in this order, a shard at a time."""
        for begin in range(0, len(wanted), SHARD):
            step(begin, len(wanted))
            own = texts(wanted[begin : begin + SHARD])
            vectors = model.documents(own).astype(np.float16)
            named = keys(own)
            name = hashlib.sha256(named.tobytes()).hexdigest()[:16]
            # The order within the store does not matter, its completeness does: the vectors come last, by rename.
            np.save(self._folder / f"{name}.keys.npy", named)
            draft = self._folder / f"{name}.draft.npy"
            np.save(draft, vectors)
            self._take(draft.replace(self._folder / f"{name}.vectors.npy"))
        step(len(wanted), len(wanted))
        self._sort()

    def gather(self, wanted: Keys) -> Vectors:
        """The vectors of these keys, a row each."""
        place = self._order[np.searchsorted(self._sorted, wanted)]
        part = np.searchsorted(self._starts, place, side="right") - 1
        out: Vectors | None = None
        for number in np.unique(part):
            where = np.flatnonzero(part == number)
            own = place[where] - self._starts[number]
            if number == 0:
                assert self._earlier
                found = self._earlier.vectors(own)
            else:
                found = self._shards[number - 1][own].astype(np.float32)
            if out is None:
                out = np.empty((len(wanted), found.shape[1]), np.float32)
            out[where] = found
        assert out is not None
        return out


def write_dense(folder: Path, wanted: Keys, store: Store, step: Step) -> int:
    """Write the faiss indexes of the vectors of these keys, in their order, a file a million; their dimensions.

    They compare by inner product and keep 16 bits a number. In memory is one file at a time.
    """
    faiss = _faiss()
    size = int(store.gather(wanted[:1]).shape[1])
    kind = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    empty = faiss.IndexScalarQuantizer(size, *kind) if len(wanted) <= FLAT else _cells(wanted, store, size, kind)
    folder.mkdir()
    for number, first in enumerate(range(0, len(wanted), FLAT)):
        index = faiss.clone_index(empty)
        last = min(first + FLAT, len(wanted))
        for begin in range(first, last, _BLOCK):
            step(begin, len(wanted))
            index.add(store.gather(wanted[begin : min(begin + _BLOCK, last)]))
        faiss.write_index(index, str(folder / f"{number:05d}.faiss"))
    step(len(wanted), len(wanted))
    return size


def _cells(wanted: Keys, store: Store, size: int, kind: tuple[int, int]) -> Any:
    """An empty index whose cells are learned from a sample."""
    faiss = _faiss()
    count = max(1, round(4 * FLAT**0.5))
    cells = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(size), size, count, *kind)
    cells.by_residual = False  # so that a vector comes out as it went in
    cells.cp.min_points_per_centroid = 1
    chosen = np.random.default_rng(0).choice(len(wanted), min(len(wanted), _SAMPLE * count), replace=False)
    cells.train(store.gather(wanted[np.sort(chosen)]))
    return cells


class Dense:
    """The faiss indexes of a folder, mapped into memory and searched as one. Raises RunError for a damaged one."""

    def __init__(self, folder: Path) -> None:
        faiss = _faiss()
        self._parts: list[Any] = []
        try:
            for path in sorted(folder.iterdir()):
                # Flat vectors and cells are mapped by different readers; each falls back to memory for the other.
                part = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
                if isinstance(part, faiss.IndexIVF):
                    part = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
                    part.nprobe = max(1, round(PROBES * part.nlist))
                self._parts.append(part)
        except (OSError, RuntimeError) as error:
            raise RunError(f"{folder} is damaged or of another faiss; build the index again") from error
        self._starts = np.cumsum([0, *(part.ntotal for part in self._parts)])

    def search(self, vectors: Vectors, count: int) -> list[tuple[Rows, Vectors]]:
        """For each query the rows of its nearest passages and their scores, best first, ties in order."""
        found: list[tuple[Rows, Vectors]] = []
        parts = [part.search(vectors, min(count, part.ntotal)) for part in self._parts] if len(vectors) else []
        for number in range(len(vectors)):
            scores = np.concatenate([scores[number] for scores, _ in parts])
            owns = zip((own[number] for _, own in parts), self._starts[:-1], strict=True)
            rows = np.concatenate([np.where(own < 0, -1, own + start) for own, start in owns])
            order = np.lexsort((rows, -scores))
            order = order[rows[order] >= 0][:count]
            found.append((rows[order], scores[order]))
        return found

    def vectors(self, rows: Rows) -> Vectors:
        """The vectors of these rows."""
        part = np.searchsorted(self._starts, rows, side="right") - 1
        out = np.empty((len(rows), self._parts[0].d), np.float32)
        for number in np.unique(part):
            if hasattr(self._parts[number], "make_direct_map"):
                self._parts[number].make_direct_map()
            where = np.flatnonzero(part == number)
            out[where] = self._parts[number].reconstruct_batch(rows[where] - self._starts[number])
        return out


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise missing("faiss-cpu") from error
    return faiss
