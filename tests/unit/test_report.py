"""The report, the statistics and the differences of builds, on builds written by hand: hostile rows, odd folders."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.errors import ChimedError
from chimed.ledger import LEDGER, VERDICTS
from chimed.publish import statistics
from chimed.publish.changes import changes
from chimed.publish.examples import EACH, examples
from chimed.publish.figures import histogram, matrix, short, shown
from chimed.publish.report import report
from chimed.stages import COLUMNS

Row = tuple[str, str, str | None, str | None, str]  # id, verdict, reason, by, detail
HOSTILE = [
    "<script>document.title='taken'</script>",
    "</script></style><img src=https://rows.invalid/x onerror=alert(1)>",
    "![图](https://rows.invalid/y) [点这里](javascript:alert(1))",
    "\x1b[31m红\x1b[0m\x07\x9b2J",
    "\u202e倒着写\u2066\u200f\u200b",
    "$style ${script} {summary}",
    "长" * 1_000_000,
]


def write_build(out: Path, rows: Sequence[Row], texts: dict[str, str], recipe: dict[str, Any] | None = None) -> Path:
    """A build with a ledger of these rows and the stage cpt with these texts by id."""
    out.mkdir(parents=True)
    cells = [(name, name.partition("/")[0], name.partition("/")[2].rpartition("#")[0], *rest) for name, *rest in rows]
    columns = zip(*cells, strict=True) if cells else [()] * len(LEDGER)
    ledger = pa.Table.from_arrays([pa.array(list(own), pa.string()) for own in columns], schema=LEDGER)
    pq.write_table(ledger, out / "ledger.parquet", row_group_size=7)
    folder = out / "cpt"
    folder.mkdir()
    names = [name.partition("/")[0] for name in texts]
    table = pa.table([list(texts), names, list(texts.values())], schema=COLUMNS["cpt"])
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for _, source, file, verdict, *_ in cells:
        own = counts.setdefault(source, {}).setdefault(file, dict.fromkeys(("read", *VERDICTS), 0))
        own["read"] += 1
        own[verdict] += 1
    manifest = {
        "stage": "cpt", "digest": "0" * 64, "recipe_digest": "1" * 64, "versions": {"chimed": "0"}, "pairs": {},
        "recipe": {"seed": 1, "near": 0.8, "sources": [], **(recipe or {})}, "rows": {"train": len(texts)},
        "sources": {name: {"train": names.count(name)} for name in sorted(set(names))}, "counts": counts,
        "files": {"train-00000-of-00001.parquet": ""},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return out


def kept(name: str) -> Row:
    return (name, "kept", None, None, "")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    rows = [kept(f"b<i>{number}/{text[:60]}#1") for number, text in enumerate(HOSTILE)]
    rows += [(f"good/f.txt#{n}", "rejected", '"><script>x', None, text[:2000]) for n, text in enumerate(HOSTILE)]
    rows += [("good/f.txt#100", "repeated", None, rows[0][0], "similarity 0.812")]
    rows += [("good/f.txt#101", "leaked", None, "eval<b>/s.json#1", "share 0.500")]
    texts = {row[0]: text for row, text in zip(rows, HOSTILE, strict=False)}
    return write_build(tmp_path / "out", rows, texts)


def test_hostile_rows_are_text(hostile: Path) -> None:
    page = report(hostile).read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert page.count("<style>") == 1
    assert not re.search(r"<(img|iframe|object|b|i)[ >/]", page.replace("<b>", "", page.count("<li><b>")))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]", page)
    assert "␛[31m红" in page
    assert "⟨U+202E⟩倒着写" in page
    assert "&lt;script&gt;document.title" in page
    assert "$style ${script}" in page
    assert "(1,000,000 characters)" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", re.sub(r"&lt;.*?&gt;", "", page))
    assert len(page.encode()) < 200_000


def test_policy_names_the_script_and_the_style_by_their_digests(hostile: Path) -> None:
    import base64
    import hashlib

    page = report(hostile).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag in ("script", "style"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert inside
        digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert " style=" not in page.split("</style>")[1]


def test_report_is_the_same_again_and_says_what_it_has_not(hostile: Path) -> None:
    first = report(hostile).read_bytes()
    assert report(hostile).read_bytes() == first
    assert "text not kept" in first.decode()
    assert not list(hostile.glob("*.partial"))


def test_borderline_pairs_come_first_and_every_source_has_its_turn(tmp_path: Path) -> None:
    rows = [kept("one/f#0")]
    rows += [(f"one/f#{n}", "repeated", None, "one/f#0", f"similarity {0.8 + n / 10_000:.4f}") for n in range(1, 900)]
    rows += [(f"two/f#{n}", "repeated", None, "one/f#0", f"similarity {0.99 + n / 1000:.3f}") for n in range(5)]
    out = write_build(tmp_path / "out", rows, {"one/f#0": "感冒多喝水"})
    found = [row for row in examples(out, statistics.stages(out)) if row.verdict == "repeated"]
    scores = [float(row.detail.split()[1]) for row in found]
    assert len(found) == EACH["repeated"]
    assert scores == sorted(scores)
    assert found[0].id == "one/f#1"
    assert sum(row.source == "two" for row in found) == 5
    assert {row.other for row in found} == {"感冒多喝水"}


def test_tally_agrees_with_the_ledger(tmp_path: Path) -> None:
    rows = [kept("a/x/y.txt#1"), ("b/f#1", "repeated", None, "a/x/y.txt#1", "similarity 0.900")]
    rows += [("b/f#2", "leaked", None, "c/t#1.json#3", "share 1.000"), ("b/f#3", "rejected", "too-short", None, "")]
    out = write_build(tmp_path / "out", rows, {"a/x/y.txt#1": "百日咳"})
    found = statistics.tally(out / "ledger.parquet")
    assert found.repeats == {("b", "a"): 1}
    assert found.leaks == {("c/t#1.json", "b"): 1}
    assert found.verdicts["b", "rejected", "too-short"] == 1
    assert found.verdicts.total() == 4


def test_statistics_of_a_build_and_of_one_stage(tmp_path: Path) -> None:
    texts = {f"a/f#{n}": "症" * n for n in range(1, 12)}
    out = write_build(tmp_path / "out", [kept(name) for name in texts], texts)
    found = statistics.statistics(out)
    (stage,) = found["stages"]
    assert (stage["rows"], stage["characters"], stage["median"], stage["p90"]) == (11, 66, 6.0, 10.0)
    assert stage["sources"] == [
        {"source": "a", "split": "train", "rows": 11, "characters": 66, "share": 1.0, "median": 6.0, "p90": 10.0}
    ]
    assert found["corpus"] == {"a": {"read": 11, "kept": 11, "rejected": 0, "repeated": 0, "leaked": 0}}
    assert statistics.statistics(out / "cpt") == found


@pytest.mark.parametrize("call", [report, statistics.statistics, lambda folder: changes(folder, folder)])
def test_a_folder_without_a_build_is_an_error_a_user_can_mend(call: Any, tmp_path: Path) -> None:
    with pytest.raises(ChimedError):
        call(tmp_path)


_FATES = st.sampled_from(
    [("kept", None, ""), ("rejected", "too-short", ""), ("rejected", "no-answer", "found ''"),
     ("repeated", None, "similarity 0.900"), ("leaked", None, "share 0.700")]
)  # fmt: skip
_LEDGERS = st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(1, 40)), _FATES, max_size=30)


@given(_LEDGERS, _LEDGERS)
@settings(max_examples=15, deadline=None)
def test_changes_are_those_of_the_ledgers(
    tmp_path_factory: pytest.TempPathFactory, before: dict[Any, Any], after: dict[Any, Any]
) -> None:
    folder = tmp_path_factory.mktemp("builds")
    old, new = (
        write_build(
            folder / name,
            [
                (f"{key[0]}/f#{key[1]}", verdict, reason, None, detail)
                for key, (verdict, reason, detail) in rows.items()
            ],
            {"a/f#1": "文"},
        )
        for name, rows in (("old", before), ("new", after))
    )
    found = changes(old, new)
    moved = {key for key in {**before, **after} if before.get(key, ())[:2] != after.get(key, ())[:2]}
    assert sum(move["rows"] for move in found["moves"]) == len(moved)
    entered = {key for key in moved if key in after and after[key][0] == "kept"}
    left = {key for key in moved if key in before and before[key][0] == "kept"}
    assert found["kept"] == {"in": len(entered), "out": len(left)}
    ids = {f"{key[0]}/f#{key[1]}" for key in moved}
    for move in found["moves"]:
        assert {row["id"] for row in move["examples"]} <= ids
        assert len(move["examples"]) == min(move["rows"], 5)
    for count in found["counts"]:
        for side, rows in (("before", before), ("after", after)):
            met = [fate for key, fate in rows.items() if key[0] == count["source"]]
            own = [f for f in met if count["verdict"] in ("read", f[0]) and count["reason"] in ("", f[1])]
            assert count[side] == len(own)


def test_changes_name_the_settings_that_differ(tmp_path: Path) -> None:
    rows = [kept("a/f#1")]
    old = write_build(tmp_path / "old", rows, {"a/f#1": "文"}, {"sources": [{"name": "a", "cap": 1}]})
    new = write_build(tmp_path / "new", rows, {"a/f#1": "文"}, {"near": 0.9, "sources": [{"name": "a", "cap": 2}]})
    found = changes(old, new)
    assert found["recipe"] == [
        {"key": "near", "before": 0.8, "after": 0.9},
        {"key": "sources.a.cap", "before": 1, "after": 2},
    ]
    assert found["counts"] == found["moves"] == found["stages"] == []


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_shown_text_holds_nothing_that_acts(text: str) -> None:
    out = shown(text, 1000)
    assert not set("<>\"'") & set(out)
    assert all(c.isprintable() or c in "\n\t" or ord(c) > 0x9F for c in out)
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in out)


@given(st.lists(st.integers(0, 2_000_000), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_a_histogram_counts_every_row(values: list[int]) -> None:
    drawn = histogram(np.array(values, np.int32), "cpt")
    counted = [int(n.replace(",", "")) for n in re.findall(r"characters: ([0-9,]+) rows", drawn)]
    assert sum(counted) == len(values)
    assert "nan" not in drawn


def test_a_matrix_has_a_cell_for_every_pair() -> None:
    drawn = matrix({("a", "b"): 3, ("c", "d"): 4000}, "pairs")
    assert drawn.count("<rect") == 4
    assert ">3</text>" in drawn
    assert f">{short(4000)}</text>" in drawn


def test_a_matrix_of_many_names_shows_those_with_the_most() -> None:
    drawn = matrix({(f"s{n}", f"t{n}"): n + 1 for n in range(300)}, "pairs")
    assert drawn.count("<rect") == 1600
    assert ">300</text>" in drawn
    assert "The 40 with the most rows are shown." in drawn
