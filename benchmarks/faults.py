"""What bad input costs: each fault ends with the right result, in bounded memory and without a quadratic step.

    python benchmarks/faults.py [NAME...] [--work FOLDER]

Makes each input, runs the command on it as a process, checks what came out, and prints a row of a Markdown table: wall
and CPU-seconds, and the largest resident set of one process. A wrong result ends the script.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
BATCH = 100_000


@dataclass(frozen=True, slots=True)
class Fault:
    """An input and what must come of it: `make` writes it below a folder and gives the command, `check` the result."""

    what: str
    make: Callable[[Path], list[str]]
    check: Callable[[Path, dict[str, Any]], bool]


def texts(count: int, text: Callable[[int], str]) -> Callable[[Path], list[str]]:
    """A Parquet file of so many texts, and the command that de-duplicates it."""

    def make(folder: Path) -> list[str]:
        file = folder / "texts.parquet"
        schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
        with pq.ParquetWriter(file, schema) as writer:
            for begin in range(0, count, BATCH):
                numbers = range(begin, min(begin + BATCH, count))
                writer.write_table(pa.table([list(numbers), [text(number) for number in numbers]], schema=schema))
        return ["dedup", str(file), "--out", str(folder / "out"), "--json"]

    return make


def paragraphs(number: int, length: int) -> str:
    """Characters drawn by a number."""
    return "".join(random.Random(number).choices(HAN, k=length))


def files(count: int) -> Callable[[Path], list[str]]:
    """A source of so many files, each one passage, and the command that builds it."""

    def make(folder: Path) -> list[str]:
        for number in range(count):
            file = folder / "raw" / "notes" / f"{number // 1000:03d}" / f"{number}.txt"
            if number % 1000 == 0:
                file.parent.mkdir(parents=True)
            file.write_text(f"第{number}例。{paragraphs(number, 120)}。", encoding="utf-8")
        source = {"name": "notes", "shape": "passage", "text": "file", "files": {"**/*.txt": "train"}, "max_rejects": 1}
        (folder / "recipe.yaml").write_text(json.dumps({"sources": [source]}), encoding="utf-8")
        paths = ["--recipe", str(folder / "recipe.yaml"), "--raw", str(folder / "raw"), "--out", str(folder / "out")]
        return ["build", "--stage", "cpt", *paths, "--json"]

    return make


ALIKE = paragraphs(0, 200)


def kept(count: int) -> Callable[[Path, dict[str, Any]], bool]:
    """That so many texts stay."""
    return lambda _, told: told["kept"] == count


def almost(number: int) -> str:
    """One text of 200 characters with one of them changed: any two share most of their shingles."""
    return ALIKE[: number % 200] + HAN[number % 2999] + ALIKE[number % 200 + 1 :]


def is_english(number: int) -> str:
    """A text without a Chinese character."""
    draw = random.Random(number)
    return " ".join("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(40))


FAULTS = {
    "copies": Fault("10,000,000 copies of one text", texts(10_000_000, lambda _: "多喝水，注意休息。" * 8), kept(1)),
    "empty": Fault("1,000,000 empty texts", texts(1_000_000, lambda _: ""), kept(1_000_000)),
    "alike": Fault(
        "500,000 texts, any two of them near-copies", texts(500_000, almost), lambda _, told: told["kept"] < 50
    ),
    "long": Fault(
        "a text of 100 MB among 1,000 of 300 characters",
        texts(1000, lambda number: paragraphs(number, 300) if number else paragraphs(0, 1000) * 33_334),
        kept(1000),
    ),
    "english": Fault("200,000 texts without a Chinese character", texts(200_000, is_english), kept(200_000)),
    "files": Fault(
        "a source of 200,000 files",
        files(200_000),
        lambda folder, _: pq.read_metadata(folder / "out" / "ledger.parquet").num_rows == 200_000,
    ),
}


def run(fault: Fault, folder: Path) -> Iterator[str]:
    """The cells of a fault's row; raises where its result is not right."""
    command = [sys.executable, "-m", "chimed.cli", *fault.make(folder)]
    began = time.monotonic()
    with (folder / "told").open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    if status or not fault.check(folder, json.loads((folder / "told").read_text())):
        sys.exit(f"{fault.what}: ended with {status} and {(folder / 'told').read_text()[:500]}\n{said[-2000:]}")
    yield from (fault.what, f"{wall:.1f}", f"{used.ru_utime + used.ru_stime:.1f}", f"{used.ru_maxrss / 1024:,.0f}")


def main() -> None:
    """Run the faults that are named, or all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*FAULTS, []], default=[], metavar="NAME")
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    print("| input | wall s | CPU-s | peak MB |\n|---|---:|---:|---:|")
    for name in asked.names or FAULTS:
        with tempfile.TemporaryDirectory(dir=asked.work) as folder:
            print(f"| {' | '.join(run(FAULTS[name], Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main()
