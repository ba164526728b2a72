"""Keys, bands, signatures and similarity: what short, empty, foreign and sliced texts mean."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from chimed.dedup import band_keys, exact_keys, jaccard, signatures

LONG = "慢性阻塞性肺疾病患者缓解期应当坚持呼吸功能锻炼并且戒烟"
EXACT = ["0x4cc83505163bf8a6", "0x7497feafcdf40a7a"]
BANDS = ["0x684dbd4d8b453ee0", "0x9f224e9d3bfaca48"]
TEXTS = [LONG, LONG + "者", "", "感冒", "感冒了", "abcdé", "𠮷野家的鱼腥草注射液", LONG, None, "感冒"]


def similarity(left: str, right: str) -> float:
    return float(jaccard(pa.array([left, right]), np.array([0]), np.array([1]))[0])


def test_equal_texts_share_keys_and_others_do_not() -> None:
    keys = [tuple(key) for key in exact_keys(pa.array(TEXTS)).tolist()]
    assert keys[0] == keys[7]
    assert keys[3] == keys[9]
    assert len(set(keys)) == len({text or "" for text in TEXTS})
    assert all(len({key[lane] for key in keys}) == len(set(keys)) for lane in (0, 1))


def test_an_empty_text_has_no_key_and_is_like_nothing() -> None:
    empty = pa.array(["", None])
    assert not exact_keys(empty).any()
    assert not band_keys(empty).any()
    assert (signatures(empty) == 0xFFFFFFFF).all()
    assert similarity("", "") == 0


def test_a_short_text_is_one_shingle() -> None:
    assert similarity("感冒", "感冒") == 1
    assert similarity("感冒", "感冒了") == 0
    assert similarity("感冒了吗", "感冒了吗我") == 0
    bands = band_keys(pa.array(["感冒", "感冒", "感冒了"]))
    assert (bands[0] == bands[1]).all()
    assert not (bands[0] == bands[2]).any()


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("abcdefgh", "abcdefg", 3 / 4),
        ("aaaaaaaaaa", "aaaaa", 1.0),  # distinct shingles: repeats do not count
        ("一二三四五六七", "六七八九十百千", 0.0),
        ("𠮷𠮷𠮷𠮷𠮷b", "𠮷𠮷𠮷𠮷𠮷c", 1 / 3),  # four bytes, one character
        ("ééééé", "éééééé", 1.0),
    ],
)
def test_similarity_counts_distinct_characters_grams(left: str, right: str, expected: float) -> None:
    assert similarity(left, right) == similarity(right, left) == expected


def test_slices_batches_threads_and_wide_offsets_agree() -> None:
    whole = pa.array(TEXTS)
    for kernel in (exact_keys, band_keys, signatures):
        expected = kernel(whole)
        assert (kernel(pa.array(TEXTS, pa.large_string())) == expected).all()
        parts = [whole[:3], whole[3:4], whole[4:4], whole[4:]]
        with ThreadPoolExecutor(2) as pool:
            assert (np.concatenate(list(pool.map(kernel, parts))) == expected).all()


def test_no_texts_give_arrays_without_rows() -> None:
    for none in (pa.array([], pa.string()), pa.array(["a"])[1:]):
        assert exact_keys(none).shape == (0, 2)
        assert band_keys(none).shape == (0, 14)
        assert signatures(none).shape == (0, 128)
        assert jaccard(none, np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0,)


def test_a_seed_decides_the_keys_for_good() -> None:
    """Stored band keys outlive the program: if these numbers change, so must the version of the cache."""
    text = pa.array([LONG])
    assert not (band_keys(text) == band_keys(text, seed=1)).any()
    assert [hex(key) for key in exact_keys(text)[0].tolist()] == EXACT
    assert [hex(key) for key in band_keys(text)[0, :2].tolist()] == BANDS


def test_a_kept_left_text_does_not_change_similarities() -> None:
    texts = pa.array([LONG, LONG[:-3], LONG[3:], "感冒", LONG * 3])
    left, right = (side.ravel() for side in np.meshgrid(np.arange(5), np.arange(5), indexing="ij"))
    matrix = jaccard(texts, left, right).reshape(5, 5)
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 1).all()
