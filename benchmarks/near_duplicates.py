"""Near-duplicate removal side by side on one input.

    python benchmarks/corpus.py RAW texts.parquet --texts 200000
    python benchmarks/near_duplicates.py texts.parquet

Each tool runs in a process of its own and says for every text which text it repeats, or -1. Printed for each: wall and
CPU seconds and peak memory of the whole process; how many texts it removes; recall, the part of the planted pairs at or
above .8 of which one text is removed; precision, the part of removed texts whose named partner is truly at or above .8,
by Python sets over a sample of 5,000.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import jaccard

THRESHOLD = 0.8
Links = npt.NDArray[np.int64]


def chimed(texts: pa.StringArray) -> Links:
    """This project's kernels: 20 bands of 6, verified."""
    from chimed.dedup import band_keys, exact, exact_keys, find  # noqa: PLC0415

    group, order = np.zeros(len(texts), np.int32), np.arange(len(texts))
    copies = exact(exact_keys(texts), group, order)
    bands = band_keys(texts)
    bands[copies >= 0] = 0
    found = find(np.ascontiguousarray(bands.T), group, order, texts.take, threshold=THRESHOLD)
    return np.where(copies >= 0, copies, found.by)


def datasketch(texts: pa.StringArray) -> Links:
    """datasketch's MinHashLSH over its batched signatures, 16 bands of 8: the first match is the partner."""
    from datasketch import MinHash, MinHashLSH  # noqa: PLC0415

    index, links = MinHashLSH(num_perm=128, params=(16, 8)), np.full(len(texts), -1)
    shingles = ([text[i : i + 5].encode() for i in range(max(len(text) - 4, 1))] for text in texts.to_pylist())
    for row, minhash in enumerate(MinHash.generator(shingles, num_perm=128)):
        matches = index.query(minhash)
        if matches:
            links[row] = min(matches)
        else:
            index.insert(row, minhash, check_duplication=False)
    return links


TOOLS: dict[str, Callable[[pa.StringArray], Links]] = {"chimed": chimed, "datasketch": datasketch}


def run(tool: str, path: Path, out: Path) -> None:
    """One tool in this process: its links and what they cost, into `out`."""
    start = time.perf_counter()
    texts = pq.read_table(path, columns=["text"])["text"].combine_chunks()
    links = TOOLS[tool](texts)
    own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "wall": time.perf_counter() - start,
        "cpu": own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime,
        "peak": own.ru_maxrss / 1024,
    }
    np.save(out.with_suffix(".npy"), links)
    out.write_text(json.dumps(cost))


def score(table: pa.Table, links: Links) -> dict[str, float]:
    """What the links are worth, against the planted pairs and by exact similarity."""
    of, planted = table["of"].to_numpy(), table["jaccard"].to_numpy()
    pairs = np.flatnonzero((of >= 0) & (planted >= THRESHOLD))
    removed = np.flatnonzero(links >= 0)
    texts = table["text"].combine_chunks()
    sample = random.Random(0).sample(removed.tolist(), min(5_000, len(removed)))
    right = [jaccard(texts[row].as_py(), texts[int(links[row])].as_py()) >= THRESHOLD for row in sample]
    return {
        "removed": len(removed),
        "recall": float(((links[pairs] >= 0) | (links[of[pairs]] >= 0)).mean()),
        "precision": float(np.mean(right)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out:
        run(args.tools[0], args.texts, args.out)
        return
    table = pq.read_table(args.texts)
    print(f"{len(table):,} texts\n")
    print("| tool | wall s | CPU-s | texts a CPU-s | peak MB | texts removed | recall | precision |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for tool in args.tools:
            out = Path(folder) / f"{tool}.json"
            command = [sys.executable, __file__, str(args.texts), "--tools", tool, "--out", str(out)]
            subprocess.run(command, check=True)
            cost, worth = json.loads(out.read_text()), score(table, np.load(out.with_suffix(".npy")))
            print(
                f"| {tool} | {cost['wall']:.1f} | {cost['cpu']:.1f} | {len(table) / cost['cpu']:,.0f} "
                f"| {cost['peak']:,.0f} | {worth['removed']:,} | {worth['recall']:.4f} | {worth['precision']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
