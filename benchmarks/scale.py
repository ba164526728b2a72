"""Time and memory of the whole build at growing sizes, and how straight the lines through them are.

    python benchmarks/scale.py RAW --sizes 0.1 1 3.2 10 [--workers 2] [--work FOLDER] [--plot docs/images/scale.png]

For each number of gigabytes makes the corpus of `raw_corpus.py` from RAW, builds all stages of it by the default
recipe, and deletes both; a small one is built before, so that all kernels are compiled. Prints a Markdown table
of sizes and one of steps, and the straight line through each measure with its largest deviation in percent of what was
measured. The line is the one whose relative deviations have the least squares, so that small sizes count as much as
large ones. A size that does not fit on the disk is left out.

Memory is sampled every 50 ms: resident sets, which count pages of mapped work files, and what processes hold of their
own, of which the largest process and the largest sum over all processes at one time are told.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build import Measured, measure
from raw_corpus import write

ROOM = 4.5  # bytes of disk that a byte of raw files takes, with work files and all stages


@dataclass(frozen=True, slots=True)
class Point:
    """A size and what its build took; memory in bytes."""

    gigabytes: float
    build: Measured
    read: int
    kept: int

    @property
    def largest(self) -> int:
        """The peak resident set of the largest process."""
        return max(self.build.peak.values())


def point(raw: Path, work: Path, gigabytes: float, workers: int) -> Point | None:
    """Make, build and delete a corpus of this size; None if the disk has no room for it."""
    free = shutil.disk_usage(work).free
    if free < ROOM * gigabytes * 1e9:
        print(
            f"{gigabytes} GB left out: {ROOM * gigabytes:.1f} GB of disk needed, {free / 1e9:.1f} free", file=sys.stderr
        )
        return None
    with tempfile.TemporaryDirectory(dir=work) as folder:
        corpus = Path(folder) / "raw"
        for _ in write(raw, corpus, gigabytes):
            pass
        build = measure(corpus, Path(folder) / "out", workers)
    counts = [own for files in build.manifests[0]["counts"].values() for own in files.values()]
    return Point(build.raw_mb / 1000, build, *(sum(own[name] for own in counts) for name in ("read", "kept")))


def table(points: list[Point]) -> str:
    """The measurements in Markdown."""
    head = "GB|records|left out|wall s|CPU-s|MB/s|MB/s a CPU|largest process MB|all processes MB|of it their own MB"
    lines = [f"| {head.replace('|', ' | ')} |", f"|{'---:|' * (head.count('|') + 1)}"]
    for one in points:
        build, cpu = one.build, sum(one.build.cpu.values())
        cells = [f"{one.gigabytes:.2f}", f"{one.read:,}", f"{one.read - one.kept:,}", f"{build.wall:.1f}", f"{cpu:.1f}"]
        cells += [f"{build.raw_mb / build.wall:.1f}", f"{build.raw_mb / cpu:.1f}"]
        cells += [f"{size / 2**20:,.0f}" for size in (one.largest, *build.tree)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def steps(points: list[Point]) -> str:
    """CPU seconds a gigabyte of each step: what grows faster than the corpus shows."""
    lines = [f"| step, CPU seconds a GB at | {' | '.join(f'{one.gigabytes:.2f} GB' for one in points)} |"]
    lines.append(f"|---|{'---:|' * len(points)}")
    taken = [one.build.steps() for one in points]
    for step in sorted(taken[-1], key=lambda step: -taken[-1][step]):
        cells = [f"{own.get(step, 0.0) / one.gigabytes:.1f}" for own, one in zip(taken, points, strict=True)]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def line(sizes: list[float], values: list[float]) -> tuple[float, float, float]:
    """Slope and intercept of the straight line, and its largest deviation in percent of the value."""
    x, y = np.array(sizes), np.array(values)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    return float(slope), float(start), float(np.max(np.abs(slope * x + start - y) / y) * 100)


def draw(points: list[Point], path: Path) -> None:
    """Time and memory against gigabytes, with the lines through them; prints how far the points lie off."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, needed for the picture alone

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    sizes = [one.gigabytes for one in points]
    rows = {
        "wall": ("wall seconds", [one.build.wall for one in points], "C0"),
        "cpu": ("CPU seconds", [sum(one.build.cpu.values()) for one in points], "C1"),
        "tree": ("all processes, MB", [one.build.tree[0] / 2**20 for one in points], "C0"),
        "own": ("of it their own, MB", [one.build.tree[1] / 2**20 for one in points], "C2"),
        "largest": ("largest process, MB", [one.largest / 2**20 for one in points], "C1"),
    }
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, names, title in zip(
        axes, (("wall", "cpu"), ("tree", "own", "largest")), ("time", "peak memory"), strict=True
    ):
        for name in names:
            label, values, colour = rows[name]
            axis.plot(sizes, values, "o", color=colour, label=label)
            if len(points) > 2:
                slope, start, off = line(sizes, values)
                ends = np.array([0, max(sizes)])
                axis.plot(ends, slope * ends + start, "-", color=colour, lw=1, alpha=0.6)
                print(f"{label}: {start:.1f} + {slope:.1f} a GB, at most {off:.1f} % off")
        axis.set(xlabel="GB of raw files", title=title, xlim=0, ylim=0)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1, 3.2, 10])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="folder for corpora and builds")
    parser.add_argument("--plot", type=Path, default=Path("docs/images/scale.png"))
    args = parser.parse_args()
    points = []
    point(args.raw, args.work, 0.02, args.workers)
    for gigabytes in args.sizes:
        if found := point(args.raw, args.work, gigabytes, args.workers):
            points.append(found)
            print(table(points[-1:]) if len(points) == 1 else table(points[-1:]).splitlines()[-1], flush=True)
    if not points:
        sys.exit("no size fits on the disk")
    stages = ", ".join(manifest["stage"] for manifest in points[0].build.manifests)
    digest = points[0].build.manifests[0]["recipe_digest"]
    print(
        f"\nAll stages ({stages}) by the default recipe ({digest[:12]}), {args.workers} workers.\n\n{steps(points)}\n"
    )
    draw(points, args.plot)


if __name__ == "__main__":
    main()
