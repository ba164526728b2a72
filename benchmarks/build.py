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
from pathlib import Path

import psutil


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("raw", type=Path)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--recipe", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "chimed.cli", "build", "--stage", "all", "--raw", str(options.raw)]
        command += ["--out", str(out), "--workers", str(options.workers)]
        command += ["--recipe", str(options.recipe)] if options.recipe else []
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak: dict[int, int] = {}
        anonymous: dict[int, int] = {}
        cpu: dict[int, float] = {}
        root = psutil.Process(process.pid)
        while process.poll() is None:
            for one in [root, *root.children(recursive=True)]:
                try:
                    memory, times = one.memory_info(), one.cpu_times()
                except psutil.Error:
                    continue
                peak[one.pid] = max(peak.get(one.pid, 0), memory.rss)
                anonymous[one.pid] = max(anonymous.get(one.pid, 0), memory.rss - memory.shared)
                cpu[one.pid] = times.user + times.system
            time.sleep(0.05)
        wall = time.perf_counter() - began
        if process.returncode:
            sys.exit(process.returncode)
        manifests = [json.loads(path.read_text()) for path in sorted(out.glob("*/manifest.json"))]
    raw = manifests[0]["raw_mb"]
    print(f"raw {raw:.1f} MB, {options.workers} workers: {wall:.1f} s wall, {sum(cpu.values()):.1f} s CPU, ", end="")
    print(f"{raw / wall:.1f} MB/s")
    for pid, size in sorted(peak.items()):
        kind = "main" if pid == process.pid else "worker"
        print(f"{kind:8} peak {size / 2**20:7.0f} MB resident, {anonymous[pid] / 2**20:7.0f} MB of it its own")
    print("step                       CPU-s     MB/s")
    steps: dict[str, float] = {}
    for manifest in manifests:
        for step, value in manifest["seconds"].items():
            steps[step] = steps.get(step, 0.0) + value if step in ("render", "shards") else value
    for step, value in steps.items():
        print(f"{step:24} {value:8.2f} {raw / max(value, 1e-3):8.1f}")


if __name__ == "__main__":
    main()
