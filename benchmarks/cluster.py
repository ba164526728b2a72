"""What a second worker is worth: the parallel part of a build with one and with two of them, on Ray nodes and locally.

    python benchmarks/cluster.py RAW [--rounds 1]

Builds all stages of RAW by the default recipe on a Ray cluster of one node of one core, on one of two such nodes, and
by one and two local workers, and prints a digest of the bytes that each leaves. The parallel part is what tasks do:
reading the raw files up to keys and leaks, rendering and writing the stages; starting up, duplicates and cards stand
apart. "Two builds" are two of one local worker each, at the same time and apart from each other: what twice the work in
their longer time comes to is what this machine's second core is worth to any engine. With several rounds the median of
each is printed. Ray needs the extra: pip install -e '.[ray]'.
"""

import argparse
import hashlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from chimed.build import Request, build
from chimed.recipe import load_recipe
from chimed.sources.spec import STAGES

PARALLEL = ("read, clean, mask, key", "render", "write")


@dataclass(slots=True)
class Clock:
    """Told of each step of a build, it knows how long each took."""

    began: list[tuple[str, float]] = field(default_factory=list)
    ended: dict[int, float] = field(default_factory=dict)

    def step(self, name: str, _total: int) -> Callable[[int], None]:
        """A step begins, and the one before it ends with its last advance."""
        self.began.append((name, time.perf_counter()))
        place = len(self.began) - 1
        self.ended[place] = time.perf_counter()

        def advance(_amount: int) -> None:
            self.ended[place] = time.perf_counter()

        return advance

    def seconds(self) -> float:
        """Of the steps that run in parallel."""
        return sum(self.ended[place] - began for place, (name, began) in enumerate(self.began) if name in PARALLEL)


def measured(raw: Path, folder: Path, workers: int, cluster: str | None) -> tuple[float, float, str]:
    """Seconds of the parallel part and of all of a build, and a digest of its Parquet files."""
    clock, began = Clock(), time.perf_counter()
    build(Request(load_recipe(None), None, raw.absolute(), folder, STAGES, workers, cluster), clock)
    whole = time.perf_counter() - began
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*/*.parquet")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return clock.seconds(), whole, digest.hexdigest()[:12]


def on_ray(raw: Path, folder: Path, nodes: int) -> tuple[float, float, str]:
    """The same on a cluster of so many nodes of one core, as processes of this machine."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        return measured(raw, folder, nodes, cluster.address)
    finally:
        cluster.shutdown()


def side_by_side(raw: Path, folder: Path) -> tuple[float, float, str]:
    """Two builds at once, each with one worker: half of the longer times, as if two workers had done one build."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        both = list(pool.map(measured, (raw, raw), (folder / "a", folder / "b"), (1, 1), (None, None)))
    return max(one[0] for one in both) / 2, max(one[1] for one in both) / 2, both[0][2]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    runs: dict[tuple[str, int], Callable[[Path], tuple[float, float, str]]] = {
        ("Ray", 1): lambda out: on_ray(asked.raw, out, 1),
        ("Ray", 2): lambda out: on_ray(asked.raw, out, 2),
        ("local", 1): lambda out: measured(asked.raw, out, 1, None),
        ("local", 2): lambda out: measured(asked.raw, out, 2, None),
        ("two builds", 2): lambda out: side_by_side(asked.raw, out),
    }
    found: dict[tuple[str, int], list[tuple[float, float, str]]] = {name: [] for name in runs}
    for _ in range(asked.rounds):
        for name, run in runs.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run(Path(folder) / "out"))
                print(*name, *found[name][-1], file=sys.stderr)
    print("| engine | workers | parallel part s | all s | one worker, parallel part = 1 | bytes |")
    print("|---|---:|---:|---:|---:|---|")
    for (engine, workers), results in found.items():
        part, whole = (median(one[place] for one in results) for place in (0, 1))
        one = median(result[0] for result in found["Ray" if engine == "Ray" else "local", 1])
        digests = ", ".join(sorted({result[2] for result in results}))
        print(f"| {engine} | {workers} | {part:.1f} | {whole:.1f} | {one / part:.2f} | {digests} |")


if __name__ == "__main__":
    main()
