"""Signatures serve datasketch: loaded into its MinHash they estimate the similarity as well as its own do."""

import random

import numpy as np
import pyarrow as pa
import pytest

from chimed.dedup import jaccard, signatures

datasketch = pytest.importorskip("datasketch")


def pairs(count: int) -> list[str]:
    """Text and varied copy in turn, at similarities from about .4 to 1."""
    rng = random.Random(5)
    texts = []
    for number in range(count):
        text = "".join(map(chr, rng.choices(range(0x4E00, 0x9FA5), k=200)))
        cut = number * 80 // count
        texts += [text, text[cut:] + "".join(map(chr, rng.choices(range(0x4E00, 0x9FA5), k=cut)))]
    return texts


def test_signatures_load_and_estimate_as_well_as_its_own() -> None:
    texts = pairs(200)
    rows = signatures(pa.array(texts), seed=3)
    left, right = np.arange(0, 400, 2), np.arange(1, 400, 2)
    true = jaccard(pa.array(texts), left, right)
    ours = [datasketch.LeanMinHash(seed=3, hashvalues=row, scheme="affine32") for row in rows]
    theirs = []
    for text in texts:
        minhash = datasketch.MinHash(num_perm=128)
        minhash.update_batch([text[i : i + 5].encode() for i in range(len(text) - 4)])
        theirs.append(minhash)
    of_ours = np.array([ours[i].jaccard(ours[j]) for i, j in zip(left, right, strict=True)])
    of_theirs = np.array([theirs[i].jaccard(theirs[j]) for i, j in zip(left, right, strict=True)])
    # The standard error of one estimate is at most sqrt(.25 / 128) = .044; the mean of 200 is a fourteenth of that.
    assert abs((of_ours - true).mean()) < 0.012
    assert np.abs(of_ours - true).max() < 4.5 * 0.044
    assert np.std(of_ours - true) < 1.25 * np.std(of_theirs - true)


def test_its_index_finds_what_our_signatures_say() -> None:
    texts = pairs(50)
    rows = signatures(pa.array(texts))
    index = datasketch.MinHashLSH(num_perm=128, params=(20, 6))
    for number, row in enumerate(rows):
        index.insert(number, datasketch.MinHash(num_perm=128, hashvalues=row, scheme="affine32"))
    for number in range(0, 20, 2):  # the most similar pairs
        assert number + 1 in index.query(datasketch.MinHash(num_perm=128, hashvalues=rows[number], scheme="affine32"))
