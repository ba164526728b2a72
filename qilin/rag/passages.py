"""The passages of an index on disk: one Arrow file, mapped into memory, whose rows the engines speak of."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qilin.errors import RunError
from qilin.rag.tokens import joined

COLUMNS = ("id", "source", "title", "text")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in COLUMNS),
        ("leaked", pa.bool_()),
        ("key", pa.binary(16)),  # of the text that is encoded
    ]
)
_BATCH = 1 << 14


def read(files: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of Parquet files, some thousand at a time."""
    for file in files:
        with pq.ParquetFile(file) as parquet:
            yield from parquet.iter_batches(_BATCH, columns=list(columns))


class Passages:
    """The passages of an index by their row. Raises RunError for a damaged file."""

    def __init__(self, path: Path) -> None:
        try:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [file.get_batch(number) for number in range(file.num_record_batches)]
        except (OSError, pa.ArrowInvalid) as error:
            raise RunError(f"{path} is missing or damaged ({error}); build the index again") from error
        self._ends = np.cumsum([len(batch) for batch in self._batches])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> dict[str, Any]:
        number = int(np.searchsorted(self._ends, row, side="right"))
        begin = int(self._ends[number - 1]) if number else 0
        batch = self._batches[number]
        return {name: batch[name][row - begin].as_py() for name in (*COLUMNS, "leaked")}

    @cached_property
    def leaked(self) -> NDArray[np.bool_]:
        """Which passages hold an evaluation item."""
        return self._column("leaked")

    @cached_property
    def keys(self) -> NDArray[np.bytes_]:
        """The key of each passage's text."""
        return self._column("key").astype("S16")

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each passage and its title."""
        sizes = [pc.add(pc.utf8_length(batch["title"]), pc.utf8_length(batch["text"])) for batch in self._batches]
        return np.concatenate(sizes).astype(np.int64)

    def _column(self, name: str) -> NDArray[Any]:
        return np.concatenate([batch[name].to_numpy(zero_copy_only=False) for batch in self._batches])

    def ids(self) -> Iterator[str]:
        """The ids of all passages, in order."""
        for batch in self._batches:
            yield from batch["id"].to_pylist()

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """What is encoded of these passages."""
        own = [self[row] for row in rows.tolist()]
        titles, texts = (pa.array([row[name] for row in own], pa.string()) for name in ("title", "text"))
        return list(joined(titles, texts).to_pylist())
