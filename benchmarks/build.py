"""Wall seconds, CPU seconds, MB/s and peak memory a process of a whole build over a folder of raw files.

    python benchmarks/build.py RAW [--workers 2] [--recipe FILE]

Memory is the resident set of the main process and of each worker, sampled every 50 ms; pages of memory-mapped work
files count in it, so it is an upper bound of what the build needs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil


@dataclass(slots=True)
class Measured:
    """A build: seconds, and bytes by process id; `own` leaves out what is shared, above all mapped files.

    tree: the largest sums over all processes at one time, resident and own.
    """

    main: int
    wall: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)
    peak: dict[int, int] = field(default_factory=dict)
    own: dict[int, int] = field(default_factory=dict)
    tree: tuple[int, int] = (0, 0)
    manifests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def raw_mb(self) -> float:
        """Megabytes of raw files."""
        return float(self.manifests[0]["raw_mb"])

    def sample(self, processes: list[psutil.Process]) -> None:
        """Take note of what these processes hold now."""
        resident = own = 0
        for one in processes:
            try:
                memory, times = one.memory_info(), one.cpu_times()
            except psutil.Error:
                continue
            self.peak[one.pid] = max(self.peak.get(one.pid, 0), memory.rss)
            self.own[one.pid] = max(self.own.get(one.pid, 0), memory.rss - memory.shared)
            self.cpu[one.pid] = times.user + times.system
            resident, own = resident + memory.rss, own + memory.rss - memory.shared
        self.tree = max(self.tree[0], resident), max(self.tree[1], own)

    def steps(self) -> dict[str, float]:
        """CPU seconds a step, of all stages together."""
        steps: dict[str, float] = self.manifests[0]["seconds"]
        return steps


def measure(raw: Path, out: Path, workers: int, recipe: Path | None = None) -> Measured:
    """Build all stages of `raw` into `out` in a process of its own. Exits with its status where it fails."""
    command = [sys.executable, "-m", "chimed.cli", "build", "--stage", "all", "--raw", str(raw)]
    command += ["--out", str(out), "--workers", str(workers)]
    command += ["--recipe", str(recipe)] if recipe else []
    measured = watched(command)
    measured.manifests = [json.loads(path.read_text()) for path in sorted(out.glob("*/manifest.json"))]
    return measured


def watched(command: list[str], said: IO[bytes] | None = None) -> Measured:
    """What a command costs, with all processes below it, looked at every 50 ms; exits with its status where it fails.

    said: where its messages go; they are shown by default.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
    measured, root = Measured(process.pid), psutil.Process(process.pid)
    while process.poll() is None:
        try:
            measured.sample([root, *root.children(recursive=True)])
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    if code := process.wait():
        sys.exit(code)
    measured.wall = time.perf_counter() - began
    return measured


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("raw", type=Path)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--recipe", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.raw, Path(folder) / "out", options.workers, options.recipe)
    raw = found.raw_mb
    print(
        f"raw {raw:.1f} MB, {options.workers} workers: {found.wall:.1f} s wall, {sum(found.cpu.values()):.1f} s CPU, ",
        end="",
    )
    print(f"{raw / found.wall:.1f} MB/s")
    for pid, size in sorted(found.peak.items()):
        kind = "main" if pid == found.main else "worker"
        print(f"{kind:8} peak {size / 2**20:7.0f} MB resident, {found.own[pid] / 2**20:7.0f} MB of it its own")
    print("step                       CPU-s     MB/s")
    for step, value in found.steps().items():
        print(f"{step:24} {value:8.2f} {raw / max(value, 1e-3):8.1f}")


if __name__ == "__main__":
    main()
