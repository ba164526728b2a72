"""The CPU seconds of the duplicate kernels, step by step, on one core; compiled before the clock starts.

    python benchmarks/corpus.py RAW texts.parquet --texts 200000
    python benchmarks/dedup_kernels.py texts.parquet

Reading the file and starting Python are left out. MB are those of the texts in UTF-8. The steps are those of
`chimed.dedup`: 128-bit keys of equal texts, MinHash signatures down to band keys, candidates from shared keys with what
is decided from them, and the exact Jaccard similarity of every candidate, with the reading of its texts. `--cold` says
how much longer the first run on a machine takes, in processes of their own: one compiles into an empty cache, one finds
it filled.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from chimed.dedup import band_keys, clusters, exact, exact_keys, find


class Clock:
    """CPU seconds of this process by step; a step within another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inner = 0.0

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            began, before = time.process_time(), self.inner
            found = function(*arguments, **more)
            spent = time.process_time() - began
            self.seconds[step] = self.seconds.get(step, 0.0) + spent - (self.inner - before)
            self.inner = before + spent
            return found

        return call


def kernels(texts: pa.StringArray, clock: Clock) -> tuple[int, int]:
    """Equal and near-equal texts, by the kernels alone; (pairs that were compared, texts that repeat another)."""
    group, order = np.zeros(len(texts), np.int32), np.arange(len(texts))
    pairs = 0
    compare = clock.timed("verification", clusters_jaccard)

    def counted(*arguments: Any, **more: Any) -> Any:
        nonlocal pairs
        pairs += len(arguments[1])
        return compare(*arguments, **more)

    clusters.jaccard = counted
    copies = clock.timed("exact keys", lambda: exact(exact_keys(texts), group, order))()
    bands = clock.timed("signatures and bands", band_keys)(texts)
    bands[copies >= 0] = 0
    columns = np.ascontiguousarray(bands.T)
    read = clock.timed("texts of candidates", texts.take)
    found = clock.timed("candidates", find)(columns, group, order, read)
    return pairs, int(((copies >= 0) | (found.by >= 0)).sum())


clusters_jaccard = clusters.jaccard


def cold(path: Path) -> None:
    """Print how long a small `chimed dedup` takes with an empty cache of kernels, and with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few.parquet"
        pq.write_table(pq.read_table(path, columns=["text"]).slice(0, 1000), few)
        environment = os.environ | {"NUMBA_CACHE_DIR": f"{folder}/cache"}
        for run in ("first", "second"):
            command = [sys.executable, "-m", "chimed.cli", "dedup", str(few), "--out", f"{folder}/{run}"]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            print(f"{run} run of `chimed dedup` over 1,000 texts: {time.perf_counter() - began:.1f} s wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="the quickest counts")
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    if args.cold:
        cold(args.texts)
        return
    texts = pq.read_table(args.texts, columns=["text"])["text"].combine_chunks()
    kernels(texts.slice(0, 2000), Clock())
    clocks = []
    for _ in range(args.rounds):
        clock = Clock()
        pairs, removed = kernels(texts, clock)
        clocks.append(clock.seconds)
    best = min(clocks, key=lambda seconds: sum(seconds.values()))
    size = texts.nbytes / 1e6
    print(f"{len(texts):,} texts, {size:.0f} MB; {pairs:,} pairs compared, {removed:,} texts repeat another\n")
    print("| step | CPU-s | MB/s |\n|---|---:|---:|")
    for step, seconds in [*best.items(), ("all", sum(best.values()))]:
        print(f"| {step} | {seconds:.2f} | {size / max(seconds, 1e-9):,.0f} |")


if __name__ == "__main__":
    main()
