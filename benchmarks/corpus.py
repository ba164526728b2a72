"""Texts with near-duplicates of known similarity: the input of the duplicate benchmarks.

    python benchmarks/corpus.py RAW OUT.parquet --texts 200000

cuts the files below RAW into folded texts of 50 to 550 characters, and makes a fifth of the texts copies of others
with characters replaced until the Jaccard similarity of distinct 5-grams falls to a level drawn from .5 to 1. OUT has
the columns `text`, `of` (row of the original, or -1) and `jaccard` (exact, to that original).
"""

import argparse
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PLANTED = 0.2


def read(path: Path) -> str:
    """The text of a file in UTF-8 or GB18030."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("gb18030", errors="ignore")


def pieces(folder: Path, count: int, rng: random.Random) -> list[str]:
    """At most `count` distinct folded pieces of the files below a folder, shuffled."""
    found: set[str] = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in {".zip", ".xlsx"}:
            continue
        text = pa.array([read(path).replace("\0", "")], pa.large_string())
        folded = pc.replace_substring_regex(pc.utf8_lower(pc.utf8_normalize(text, "NFKC")), r"[^\p{L}\p{N}]+", "")
        whole, at = folded[0].as_py(), 0
        while at < len(whole) - 50:
            size = rng.randint(50, 550)
            found.add(whole[at : at + size])
            at += size
    ordered = sorted(found)
    rng.shuffle(ordered)
    return ordered[:count]


def shingles(text: str) -> set[str]:
    """The distinct 5-grams of a text; a shorter text is its own only shingle."""
    return {text[i : i + 5] for i in range(len(text) - 4)} or ({text} if text else set())


def jaccard(one: str, two: str) -> float:
    """The Jaccard similarity of two texts, by Python sets."""
    left, right = shingles(one), shingles(two)
    return len(left & right) / max(len(left | right), 1)


def vary(text: str, level: float, rng: random.Random) -> str:
    """A copy of `text` with characters replaced, cut or doubled until its similarity is about `level`."""
    changed, lost = list(text), len(text) * (1 - level) / (1 + level)
    for _ in range(max(1, round(lost / 5))):
        at = rng.randrange(len(changed))
        changed[at] = rng.choice((chr(rng.randint(0x4E00, 0x9FA5)), changed[at] * 2, "", changed[at - 1]))
    return "".join(changed)


def make(folder: Path, count: int, seed: int = 0) -> pa.Table:
    """The table of `count` texts (fewer if the folder has too little), in random order."""
    rng = random.Random(seed)
    originals = pieces(folder, round(count * (1 - PLANTED)), rng)
    sources = [rng.randrange(len(originals)) for _ in range(round(len(originals) * PLANTED / (1 - PLANTED)))]
    copies = [vary(originals[of], rng.uniform(0.5, 1.0), rng) for of in sources]
    similarity = [jaccard(originals[of], copy) for of, copy in zip(sources, copies, strict=True)]
    order = np.random.default_rng(seed).permutation(len(originals) + len(copies))
    place = np.argsort(order)
    of = np.concatenate([np.full(len(originals), -1), place[sources]])
    return pa.table(
        {
            "text": pa.array(originals + copies, pa.string()).take(pa.array(order)),
            "of": of[order],
            "jaccard": np.concatenate([np.ones(len(originals)), similarity])[order],
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    table = make(args.raw, args.texts, args.seed)
    pq.write_table(table, args.out)
    characters = pc.sum(pc.utf8_length(table["text"])).as_py()
    print(f"{len(table):,} texts, {characters:,} characters, {pc.sum(pc.equal(table['of'], -1)).as_py():,} originals")


if __name__ == "__main__":
    main()
