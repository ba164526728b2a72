"""Token ids on disk: the file that tokenising fills, and the Arrow shards that training reads."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qilin.bytepairs import Ids
from qilin.documents import Block, Loss, few
from qilin.packing import Numbers, cut, pack

_SHARD = 1 << 25  # tokens of room
_BATCH = 1 << 20
_IGNORED = -100  # the label that TRL and torch leave out of the loss
_WIDTH = 4  # bytes of a token


class Written(NamedTuple):
    """What was written: rows, their tokens, those that carry loss, and the pieces that documents were cut into."""

    rows: int
    tokens: int
    trained: int
    pieces: int


class Store(AbstractContextManager["Store"]):
    """The tokens of documents, one after the other in a file that goes when the block ends; their lengths in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w+b")
        self._lengths: list[NDArray[np.int32]] = []
        self._unused = np.zeros(0, np.int64)
        self.dropped = self.truncated = 0
        self.losses: tuple[Loss, ...] = ()

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.path.unlink()

    def add(self, block: Block) -> None:
        """Append the documents of a block."""
        self._file.write(block.tokens.tobytes())
        self._lengths.append(block.lengths)
        self.dropped += block.dropped
        self.truncated += block.truncated
        self.losses = few((*self.losses, *block.losses))

    def leave_out(self, documents: Numbers) -> None:
        """Do not use these documents."""
        self._unused = documents

    @property
    def lengths(self) -> NDArray[np.int32]:
        """A line for each document: the tokens of each part of it; zeros for one that is dropped or left out."""
        lengths = self._all()
        lengths[self._unused] = 0
        return lengths

    @property
    def begins(self) -> Numbers:
        """Where in the file each document begins, in tokens."""
        sizes: Numbers = self._all().sum(axis=1)
        return np.cumsum(sizes) - sizes

    def _all(self) -> NDArray[np.int32]:
        return np.concatenate(self._lengths)

    def gather(self, begins: Numbers, sizes: NDArray[np.int32]) -> Ids:
        """The tokens of these stretches of the file, one after the other."""
        self._file.flush()
        tokens = np.empty(int(sizes.sum()), np.int32)
        view, at = memoryview(tokens.data).cast("B"), 0
        # Read, not mapped: mapped pages count as memory of this process.
        for begin, size in zip((begins * _WIDTH).tolist(), (sizes * _WIDTH).tolist(), strict=True):
            if os.preadv(self._file.fileno(), [view[at : at + size]], begin) != size:
                raise OSError(f"{self.path} has been cut off")
            at += size
        return tokens


def write(
    store: Store, split: str, folder: Path, length: int, *, seed: int, progress: Callable[[int, int, str], None]
) -> Written:
    """Write the documents of a store as shards `<split>-00000-of-0000N.arrow`: packed, or as pairs of three parts."""
    parts = store.lengths.shape[1]
    shards = _Packed(store, length, seed) if parts == 1 else _Pairs(store)
    rows = shards.rows
    room = parts * length
    size = max(1, _SHARD // room)
    count = -(-rows // size)
    trained = 0
    for number in range(count):
        path = folder / f"{split}-{number:05d}-of-{count:05d}.arrow"
        last = min((number + 1) * size, rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, shards.schema) as stream:
            for begin in range(number * size, last, max(1, _BATCH // room)):
                columns, carrying = shards.batch(begin, min(begin + max(1, _BATCH // room), last))
                stream.write_batch(pa.record_batch(columns, shards.schema))
                trained += carrying
                progress(begin, rows, f"write {split}")
    progress(rows, rows, f"write {split}")
    return Written(rows, shards.tokens, trained, shards.pieces)


class _Packed:
    """Rows of documents that fill a length, with the labels that say which tokens carry loss."""

    schema = pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "labels", "seq_lengths")])

    def __init__(self, store: Store, length: int, seed: int) -> None:
        lengths = store.lengths[:, 0].astype(np.int64)
        used = np.flatnonzero(lengths)
        # Pieces are numbered through; `cut` sees the used documents as if they lay side by side.
        begins, self._sizes = cut(lengths[used], length)
        counts = -(-lengths[used] // length)
        side_by_side = np.cumsum(lengths[used]) - lengths[used]
        self._begins = begins + np.repeat(store.begins[used] - side_by_side, counts)
        self._store = store
        self._rows = pack(self._sizes, length, seed)
        self.rows, self.pieces, self.tokens = len(self._rows), len(self._sizes), int(lengths.sum())

    def batch(self, begin: int, end: int) -> tuple[list[pa.Array], int]:
        """The rows from `begin` to `end` as columns, and how many of their tokens carry loss."""
        offsets = self._rows.offsets[begin : end + 1]
        own = self._rows.order[offsets[0] : offsets[-1]]
        sizes = self._sizes[own]
        stored = self._store.gather(self._begins[own], sizes)
        carries = stored < 0
        ids = np.where(carries, ~stored, stored)
        labels = np.where(carries, ids, np.int32(_IGNORED))
        ends = np.concatenate([[0], np.cumsum(sizes)])
        starts = ends[:-1]
        edges = ends[offsets - offsets[0]]
        columns = [_lists(edges, ids), _lists(edges, labels), _lists(offsets - offsets[0], sizes)]
        return columns, int(carries.sum() - carries[starts].sum())


class _Pairs:
    """Preference pairs, in the order of the data."""

    schema = pa.schema([(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")])

    def __init__(self, store: Store) -> None:
        lengths = store.lengths
        used = np.flatnonzero(lengths.sum(axis=1))
        self._store, self._sizes = store, lengths[used]
        self._begins = store.begins[used, None] + np.cumsum(self._sizes, axis=1) - self._sizes
        self.rows = self.pieces = len(used)
        self.tokens = int(self._sizes.sum() + self._sizes[:, 0].sum())  # the prompt stands before both replies

    def batch(self, begin: int, end: int) -> tuple[list[pa.Array], int]:
        """The pairs from `begin` to `end` as columns, and how many of their tokens carry loss."""
        columns = []
        for part in range(3):
            sizes = self._sizes[begin:end, part]
            tokens = self._store.gather(self._begins[begin:end, part], sizes)
            columns.append(_lists(np.concatenate([[0], np.cumsum(sizes)]), tokens))
        return columns, int(self._sizes[begin:end, 1:].sum())


def _lists(edges: Numbers, values: Ids) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(edges, pa.int32()), pa.array(values, pa.int32()))
