"""Speed of the text steps beside the usual ways, in MB a CPU-second of one core, on real texts.

    python benchmarks/text_steps.py FOLDER [MEGABYTES]

FOLDER holds text or JSON files in UTF-8; of JSON every string of 20 characters or more is a text, of other files every
line. The first MEGABYTES (50) of them, files in order of name, are the input. Each step runs once to warm up; the best
of three runs counts.
"""

import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import opencc
import pyarrow as pa
import pyarrow.compute as pc

from chimed.text import clean, fold, han_share, language, mask

STEPS: dict[str, Callable[[pa.StringArray], object]] = {
    "clean": clean,
    "clean, script as is": lambda texts: clean(texts, script="as-is"),
    "fold": fold,
    "mask": mask,
    "clean, then mask, then fold": lambda texts: fold(mask(clean(texts))[0]),
    "han_share": han_share,
    "language": language,
}
PERSONAL = (
    r"1[3-9]\d{9}",
    r"0\d{2,3}-?\d{7,8}",
    r"\d{17}[\dXx]",
    r"[\w.+-]+@[\w-]+\.[\w.]+",
    r"https?://\S+",
    r"(?:QQ|微信)\W*\w{5,}",
)


def usual() -> dict[str, Callable[[list[str]], object]]:
    """What most scripts do for the same step, a text at a time; no more than a part of what the step here does."""
    convert = opencc.OpenCC("t2s").convert
    patterns = [re.compile(pattern) for pattern in PERSONAL]
    blanks, marks, other = re.compile(r"\s+"), re.compile(r"([。！？，])\1+"), re.compile(r"[\W_]+")

    def clean_one(text: str) -> str:
        return marks.sub(r"\1", blanks.sub(" ", convert(unicodedata.normalize("NFKC", text))))

    def mask_one(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub("[X]", text)
        return text

    return {
        "unicodedata NFKC": lambda texts: [unicodedata.normalize("NFKC", text) for text in texts],
        "opencc t2s": lambda texts: [convert(text) for text in texts],
        "NFKC + opencc + re for blanks and marks": lambda texts: [clean_one(text) for text in texts],
        "NFKC + opencc + lower + re, as a key": lambda texts: [
            other.sub("", clean_one(text).lower()) for text in texts
        ],
        "six patterns with re": lambda texts: [mask_one(text) for text in texts],
        "re for Han": lambda texts: [len(re.findall("[\u4e00-\u9fff]", text)) for text in texts],
    }


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def texts_of(folder: Path) -> Iterator[str]:
    """The texts of all files below a folder."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            content = path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            continue
        lines = content.splitlines()
        try:
            values = [json.loads(content)]
        except ValueError:
            try:
                values = [json.loads(line) for line in lines if line.strip()]
            except ValueError:
                values = [lines]
        yield from (text for text in strings(values) if len(text) >= 20)


def corpus(folder: Path, megabytes: float) -> pa.StringArray:
    """The first texts of a folder, up to that size."""
    chosen: list[str] = []
    room = megabytes * 1e6
    for text in texts_of(folder):
        if room <= 0:
            break
        chosen.append(text)
        room -= len(text.encode())
    return pa.array(chosen, pa.string())


def speed(step: Callable[[Any], object], texts: Any, megabytes: float, runs: int = 3) -> float:
    """MB a CPU-second, the best of some runs."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        step(texts)
        times.append(time.process_time() - start)
    return megabytes / min(times)


def main() -> None:
    texts = corpus(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 50)
    size = pc.sum(pc.binary_length(texts)).as_py() / 1e6
    print(f"{len(texts):,} texts, {size:.1f} MB\n\n{'step':42} {'MB/CPU-s':>9}")
    ready = clean(texts)
    for name, step in STEPS.items():
        step(texts.slice(0, 1000))
        print(f"{name:42} {speed(step, texts if 'clean' in name else ready, size):9,.0f}")
    print(f"{'clean of cleaned texts':42} {speed(clean, ready, size):9,.0f}\n")
    part = texts.slice(0, len(texts) // 10).to_pylist()
    share = sum(len(text.encode()) for text in part) / 1e6
    for name, way in usual().items():
        print(f"{name:42} {speed(way, part, share, runs=1):9,.1f}")


if __name__ == "__main__":
    main()
