"""What a terabyte of raw files needs on a cluster, by arithmetic and simulation from a build that was measured.

    chimed build --stage all --raw TEXTS --out OUT        # a folder of raw files without knowledge graphs
    python benchmarks/terabyte.py OUT [--terabytes 1] [--nodes 1 8 32] [--cores 32] [--bytes-a-row 250]

Parts and shards are as many as their bytes make, and each takes what one drawn from those of OUT took; they go to the
cores as the build hands them out, the next one to whoever is free. Duplicates are decided by one process, in proportion
to the rows; 250 bytes a row of the largest shape is all that the main process held of its own at 5 million dialogues.
Graphs are left out, since they do not grow with text: see the whole build in docs/benchmarks.md for what
one takes. Not in it either: starting Python, waiting for the disk, other work on the nodes. Whether the shared folder
is fast enough is told as the bytes a second that each node reads and writes while its cores are never idle.
"""

import argparse
import heapq
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True)
class Build:
    """A build that was measured: bytes of raw files, parts, keys, runs and shards; rows of the shape with most rows;
    CPU seconds of each part, of rendering, of shards and of duplicates; how many shards."""

    raw: float
    parts: float
    keys: float
    runs: float
    shards: float
    rows: int
    took: list[float]
    render: float
    write: float
    duplicates: float
    files: int


def measured(out: Path) -> Build:
    """The figures of a finished build with its work folder."""
    manifest = json.loads(next(out.glob("*/manifest.json")).read_text())
    done = [json.loads(path.read_text()) for path in out.glob(".work/parts/*/done.json")]
    files = list(out.glob("*/*.parquet"))
    groups = [pq.ParquetFile(path).metadata for path in files]
    seconds = manifest["seconds"]
    return Build(
        raw=manifest["raw_mb"] * 1e6,
        parts=_size(out.glob(".work/parts/*/*.arrow")),
        keys=_size(out.glob(".work/parts/*/*.keys.arrow")),
        runs=float(sum(one.row_group(n).total_byte_size for one in groups for n in range(one.num_row_groups))),
        shards=_size(files),
        rows=max(sum(one["kept"].get(shape, 0) for one in done) for shape in ("dialogue", "passage", "exam")),
        took=[sum(one["seconds"].values()) for one in done],
        render=seconds["render"],
        write=seconds["shards"],
        duplicates=seconds["duplicates"],
        files=len(files),
    )


def _size(paths: Iterable[Path]) -> float:
    return float(sum(path.stat().st_size for path in paths))


def scheduled(took: list[float], cores: int) -> float:
    """Seconds until the last of these tasks is done, each taken in turn by the core that is free first."""
    free = [0.0] * cores
    for one in took:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


def table(build: Build, terabytes: float, nodes: list[int], cores: int, bytes_a_row: float) -> str:
    """Rows of Markdown, a column for each number of nodes."""
    times = terabytes * 1e12 / build.raw
    draw = random.Random(0)
    parts = draw.choices(build.took, k=round(len(build.took) * times))
    # Rendering goes part by part, with the share of each in the work; shards are all of one size.
    whole = sum(build.took)
    rendered = [one / whole * build.render for one in parts]
    shards = [build.write / build.files] * round(build.files * times)
    decided = build.duplicates * times
    rows: dict[str, list[str]] = {}

    def add(name: str, text: str) -> None:
        rows.setdefault(name, []).append(text)

    for count in nodes:
        steps = [scheduled(tasks, count * cores) for tasks in (parts, rendered, shards)]
        moved = (terabytes * 1e12 + times * (2 * build.parts + 2 * build.runs + build.shards)) / sum(steps) / count
        add("tasks: parts, rendered parts, shards", f"{len(parts):,}, {len(rendered):,}, {len(shards):,}")
        for name, took in zip(("parts, hours", "rendering, hours", "shards, hours"), steps, strict=True):
            add(name, f"{took / 3600:.1f}")
        add("duplicates, one process, hours", f"{decided / 3600:.1f}")
        add("all, hours", f"{(sum(steps) + decided) / 3600:.1f}")
        add("memory of the process that decides, GB", f"{build.rows * times * bytes_a_row / 1e9:,.0f}")
        add("memory of the workers of a node at 2 GB each, GB", f"{2 * cores:,}")
        add("written to the shared folder: parts, runs, shards, TB", _terabytes(build, times))
        add("of it keys, read again by the process that decides, TB", f"{build.keys * times / 1e12:.1f}")
        add("read and written by a node that never waits, MB/s", f"{moved / 1e6:,.0f}")
    head = f"| {terabytes:g} TB, nodes of {cores} cores | " + " | ".join(f"{count:,}" for count in nodes) + " |"
    lines = [head, "|---|" + "---:|" * len(nodes), *(f"| {name} | {' | '.join(own)} |" for name, own in rows.items())]
    return "\n".join(lines)


def _terabytes(build: Build, times: float) -> str:
    return ", ".join(f"{one * times / 1e12:.1f}" for one in (build.parts, build.runs, build.shards))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--terabytes", type=float, default=1)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--cores", type=int, default=32)
    parser.add_argument("--bytes-a-row", type=float, default=250, help="memory of the process that decides, a row")
    args = parser.parse_args()
    if not any(args.out.glob("*/manifest.json")) or not any(args.out.glob(".work/parts/*/done.json")):
        parser.error(f"{args.out}: no finished build with its folder .work; give the --out of one")
    build = measured(args.out)
    print(f"{build.raw / 1e9:.2f} GB measured: {len(build.took)} parts, {sum(build.took):.1f} CPU-s\n")
    print(table(build, args.terabytes, args.nodes, args.cores, args.bytes_a_row))


if __name__ == "__main__":
    main()
