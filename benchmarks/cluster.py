"""What a second worker is worth: the parallel part of a build with one and with two of them, on Ray nodes and locally.

    python benchmarks/cluster.py RAW

Builds all stages of RAW by the default recipe on a Ray cluster of one node of one core, on one of two such nodes, and
by one and two local workers, and prints a digest of the bytes that each leaves. The parallel part is what tasks do:
reading the raw files up to keys and leaks, rendering and writing the stages; starting up, duplicates and cards stand
apart. Ray needs the extra: pip install -e '.[ray]'.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    asked = parser.parse_args()
    print("| engine | workers | parallel part s | all s | one worker, parallel part = 1 | bytes |")
    print("|---|---:|---:|---:|---:|---|")
    for engine in ("Ray", "local"):
        first = 0.0
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as name:
                out = Path(name) / "out"
                found = on_ray(asked.raw, out, workers) if engine == "Ray" else measured(asked.raw, out, workers, None)
            first = first or found[0]
            print(f"| {engine} | {workers} | {found[0]:.1f} | {found[1]:.1f} | {first / found[0]:.2f} | {found[2]} |")


if __name__ == "__main__":
    main()
