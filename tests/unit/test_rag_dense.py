"""Vectors on disk: what is encoded once stays encoded, and what is near is found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from qilin.errors import RunError
from qilin.rag import dense
from qilin.rag.dense import Dense, Store, Vectors, keys, write_dense

pytest.importorskip("faiss", reason="vectors need the extra eval")

TEXTS = [f"段落{number}" for number in range(400)]
KEYS = keys(TEXTS)


class KilledError(Exception):
    """What a kill looks like from inside."""


class Random:
    """Encodes a text by its own seed; gives up after `calls` calls."""

    def __init__(self, calls: int = 10**9) -> None:
        self.calls, self.seen = calls, list[str]()

    def documents(self, texts: Sequence[str]) -> Vectors:
        if not self.calls:
            raise KilledError
        self.calls -= 1
        self.seen += texts
        seeds = [int.from_bytes(key[:4]) for key in keys(list(texts)).tolist()]
        rows = np.stack([np.random.default_rng(seed).standard_normal(16) for seed in seeds]).astype(np.float32)
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def fill(store: Store, model: Random, wanted: Sequence[int]) -> None:
    store.fill(np.array(wanted), lambda rows: [TEXTS[row] for row in rows], model, lambda done, total: None)


def expected(rows: Sequence[int]) -> Vectors:
    return Random().documents([TEXTS[row] for row in rows]).astype(np.float16).astype(np.float32)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "SHARD", 64)


@pytest.mark.usefixtures("small_shards")
def test_a_killed_encoding_goes_on_where_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.lacks(KEYS).all()
    with pytest.raises(KilledError):
        fill(store, Random(calls=3), range(400))
    again = Store(tmp_path)
    left = np.flatnonzero(again.lacks(KEYS))
    assert left.tolist() == list(range(3 * 64, 400))
    model = Random()
    fill(again, model, left.tolist())
    assert model.seen == TEXTS[3 * 64 :]
    order = [399, 5, 5, 64, 200]
    np.testing.assert_array_equal(again.gather(KEYS[order]), expected(order))


@pytest.mark.usefixtures("small_shards")
def test_a_shard_whose_vectors_are_missing_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, Random(), range(128))
    next(iter(tmp_path.glob("*.vectors.npy"))).unlink()
    assert Store(tmp_path).lacks(KEYS[:128]).sum() == 64


@pytest.mark.parametrize("flat", [dense.FLAT, 100])
def test_vectors_outlive_their_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: int) -> None:
    monkeypatch.setattr(dense, "FLAT", flat)
    store = Store(tmp_path / "shards")
    fill(store, Random(), range(300))
    assert write_dense(tmp_path / "dense", KEYS[:300], store, lambda done, total: None) == 16
    later = Store(tmp_path / "other", (KEYS[:300], Dense(tmp_path / "dense")))
    assert np.flatnonzero(later.lacks(KEYS)).tolist() == list(range(300, 400))
    fill(later, Random(), range(300, 400))
    rows = [350, 7, 299, 7]
    np.testing.assert_array_equal(later.gather(KEYS[rows]), expected(rows))


def test_flat_search_is_exact(tmp_path: Path) -> None:
    store = Store(tmp_path / "shards")
    fill(store, Random(), range(60))
    write_dense(tmp_path / "dense", KEYS[:60], store, lambda done, total: None)
    queries, vectors = np.random.default_rng(0).standard_normal((9, 16)).astype(np.float32), expected(range(60))
    for count in (1, 7, 60, 99):
        for query, (rows, scores) in zip(queries, Dense(tmp_path / "dense").search(queries, count), strict=True):
            every = vectors @ query
            assert rows.tolist() == np.argsort(-every)[:count].tolist()
            np.testing.assert_allclose(every[rows], scores, rtol=1e-3, atol=1e-4)


def test_no_question_finds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "shards")
    fill(store, Random(), range(3))
    write_dense(tmp_path / "dense", KEYS[:3], store, lambda done, total: None)
    assert Dense(tmp_path / "dense").search(np.zeros((0, 16), np.float32), 5) == []


def test_cells_in_several_files_find_most_of_what_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dense, "FLAT", 150)
    monkeypatch.setattr(dense, "PROBES", 0.5)
    monkeypatch.setattr(dense, "_BLOCK", 64)
    store = Store(tmp_path / "shards")
    fill(store, Random(), range(400))
    write_dense(tmp_path / "dense", KEYS, store, lambda done, total: None)
    assert len(list((tmp_path / "dense").iterdir())) == 3
    vectors = expected(range(400))
    found = Dense(tmp_path / "dense").search(vectors[:50], 10)
    right = [set(np.argsort(-vectors @ vector)[:10].tolist()) for vector in vectors[:50]]
    assert np.mean([len(set(rows.tolist()) & near) for (rows, _), near in zip(found, right, strict=True)]) > 7
    assert all(rows[0] == number for number, (rows, _) in enumerate(found))
    assert capfd.readouterr().out == ""


def test_a_damaged_index_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "00000.faiss").write_bytes(b"not an index")
    with pytest.raises(RunError, match="damaged or of another faiss"):
        Dense(tmp_path)
