"""Against all pairs: precision 1 and recall of .98 at a similarity of .8, on real and on made texts."""

import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chimed.dedup import band_keys, find, jaccard

THRESHOLD = 0.8


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(len(text) - 4)} or ({text} if text else set())


def all_pairs(sets: list[set[str]]) -> dict[tuple[int, int], float]:
    """Every pair at or above the threshold, by Python sets.

    Pairs that share none of their rarest shingles are skipped, which loses nothing: two sets that are alike share at
    least the threshold's part of each, so they share one of the first (1 - threshold) part of any common ordering
    (Bayardo, Ma and Srikant 2007).
    """
    counts = Counter(shingle for one in sets for shingle in one)
    holders: dict[str, list[int]] = defaultdict(list)
    found = {}
    for row, one in enumerate(sets):
        rarest = sorted(one, key=lambda shingle: (counts[shingle], shingle))
        prefix = rarest[: len(one) - math.ceil(THRESHOLD * len(one) - 1e-9) + 1]
        for other in {other for shingle in prefix for other in holders[shingle]}:
            shared = len(one & sets[other])
            if shared >= THRESHOLD * (len(one) + len(sets[other]) - shared):
                found[other, row] = shared / (len(one) + len(sets[other]) - shared)
        for shingle in prefix:
            holders[shingle].append(row)
    return found


def plant(texts: list[str], count: int) -> list[str]:
    """The texts and `count` copies with characters replaced, at similarities of .5 to .95, shuffled."""
    rng = random.Random(11)
    planted = []
    for number in range(count):
        text = rng.choice(texts)
        lost = len(text) * (0.05 + 0.45 * number / count) / (1.95 - 0.45 * number / count)
        characters = list(text)
        for at in rng.sample(range(len(text)), max(1, round(lost / 5))):
            characters[at] = chr(rng.randint(0x4E00, 0x9FA5))
        planted.append("".join(characters))
    mixed = texts + planted
    rng.shuffle(mixed)
    return mixed


def compare(texts: list[str]) -> None:
    array = pa.array(texts)
    sets = [shingles(text) for text in texts]
    truth = all_pairs(sets)
    kept_all: dict[int, int] = {}
    for row in range(len(texts)):  # the same greedy walk over all true pairs
        kept_all[row] = -1
    for earlier, later in sorted(truth, key=lambda pair: pair[1]):
        if kept_all[earlier] < 0 and kept_all[later] < 0:
            kept_all[later] = earlier
    found = find(band_keys(array).T, np.zeros(len(texts)), np.arange(len(texts)), array.take)
    dropped = np.flatnonzero(found.by >= 0)
    for row in dropped.tolist():  # precision 1: every row named is truly alike, and its similarity is the exact one
        assert truth[int(found.by[row]), row] == found.similarity[row]
    expected = {row for row, kept in kept_all.items() if kept >= 0}
    assert len(expected & set(dropped.tolist())) >= 0.98 * len(expected)
    joined = [found.component[one] == found.component[two] for one, two in truth]
    assert np.mean(joined) >= 0.98
    for lower in (0.8, 0.85, 0.9):  # as good just above the threshold as far from it
        near = [
            found.component[one] == found.component[two] for (one, two), j in truth.items() if lower <= j < lower + 0.05
        ]
        assert len(near) > 20
        assert np.mean(near) >= 0.98
    left, right = (np.array(side) for side in zip(*truth, strict=True))
    assert (jaccard(array, left, right) == np.array(list(truth.values()))).all()


def test_prefixes_lose_no_pair() -> None:
    rng = random.Random(2)
    texts = plant(["".join(rng.choices("病人气血虚寒热痛", k=rng.randint(5, 90))) for _ in range(150)], 150)
    sets = [shingles(text) for text in texts]
    slow = {
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= THRESHOLD
    }
    assert set(all_pairs(sets)) == slow
    assert slow


def test_made_texts() -> None:
    """Texts of words from a small vocabulary, so that unrelated texts share shingles too."""
    rng = random.Random(3)
    words = ["".join(map(chr, rng.choices(range(0x4E00, 0x9FA5), k=rng.randint(2, 6)))) for _ in range(500)]
    texts = ["".join(rng.choices(words, k=rng.randint(15, 90))) for _ in range(2_400)]
    compare(plant(texts, 600))


def test_real_rows(raw: Path) -> None:
    rows: list[str] = []
    for path in sorted((raw / "tcm-classics").glob("*.txt")) + sorted((raw / "xywy-kg").glob("*.json")):
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("gb18030", errors="ignore")
        text = text[:400_000]
        rows += [text[at : at + 300] for at in range(0, len(text), 300)]
    folded = pc.replace_substring_regex(pa.array(rows, pa.string()), r"[^\p{L}\p{N}]+", "").to_pylist()
    long_enough = [text for text in folded if len(text) >= 60]
    random.Random(4).shuffle(long_enough)
    assert len(long_enough) >= 16_000
    compare(plant(long_enough[:16_000], 4_000))
