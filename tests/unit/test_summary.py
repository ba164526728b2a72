"""What the terminal shows: data is text there, whatever stands in it, and tables fit 80 columns."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from chimed import summary
from chimed.ledger import LEDGER
from chimed.stages import COLUMNS

HOSTILE = [
    "\x1b[31m红\x1b[0m\x07\x9b2J\r\x08",
    "\u202e倒着写\u2066\u200f\u200b\u2028",
    "[bold red]不是标记[/] [link=http://rows.invalid]x[/link] :smile:",
    "<script>alert(1)</script> **粗** --- \n# 标题",
    "\ud800\ue000\U000e0041",
    "长" * 1_000_000,
]
ACTS = [chr(code) for code in (*range(10), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), 0x2028, 0x200F)]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed: with nothing in it that acts on a terminal, and no line wider than it."""
    out = capsys.readouterr().out
    assert not set(ACTS) & set(out)
    assert max(map(cell_len, out.split("\n"))) <= 80
    return out


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def test_rows_are_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [
        {"id": f"a/{text[:40]}", "source": "a", "messages": [{"role": "user", "content": text}]} for text in HOSTILE
    ]
    rows += [{"id": "a/2", "source": "a", "question": "问", "options": HOSTILE[:4], "answer": "A"}]
    manifest = {"stage": "sft", "rows": {"train": 7}, "sources": {text[:60]: {"train": 1} for text in HOSTILE}}
    summary.show_stage(Path("out/sft"), manifest, rows)
    out = told(capsys)
    assert "␛[31m红␛[0m" in out
    assert "⟨U+202E⟩倒着写" in out
    assert "[bold red]不是标记[/]" in out
    assert ":smile:" in out
    assert "(1,000,000 characters)" in out
    assert len(out) < 30_000


def test_answers_to_why_are_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = [f"a/f.txt#{number}" for number in range(5)]
    columns = [
        names,
        ["a"] * 5,
        ["f.txt"] * 5,
        ["rejected"] * 5,
        ["no-text"] * 5,
        [None] * 5,
        [*HOSTILE[:4], "长" * 500],
    ]
    table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=LEDGER)
    pq.write_table(table, tmp_path / "ledger.parquet")
    for name in names:
        summary.show_explained(summary.explain(tmp_path, name))
    assert "[bold red]不是标记[/]" in told(capsys).replace("\n", "")


def test_tables_of_statistics_and_changes_are_text_and_fit(capsys: pytest.CaptureFixture[str]) -> None:
    great = {"rows": 123_456_789, "characters": 987_654_321_000, "share": 1.0, "median": 12_345.0, "p90": 123_456.0}
    sources = [{"source": text[:300], "split": "validation", **great} for text in HOSTILE]
    counts = dict.fromkeys(("read", "kept", "rejected", "repeated", "leaked"), 123_456_789)
    corpus = {text[:300]: counts for text in HOSTILE}
    summary.show_statistics({"stages": [{"stage": "sft", **great, "sources": sources}], "corpus": corpus})
    text = HOSTILE[2]
    both = {"before": 1, "after": 123_456_789}
    move = {"source": text, "before": "kept", "before_reason": "", "after": "rejected", "after_reason": text, "rows": 3}
    found: dict[str, Any] = {
        "recipe": [{"key": f"sources.{one[:50]}.cap", "before": one[:90], "after": None} for one in HOSTILE],
        "stages": [{"stage": "sft", "split": "train", **both}],
        "counts": [{"source": one, "verdict": "rejected", "reason": one[:99], **both} for one in HOSTILE],
        "moves": [{**move, "examples": [{"id": one[:50], "before": "", "after": one} for one in HOSTILE]}],
        "kept": {"in": 1, "out": 2},
    }
    summary.show_changes(found)
    assert "[bold red]不是标记[/]" in told(capsys)


def test_names_of_files_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    planned = {f"sft/{text[:60]}.parquet": 123_456_789_000 for text in HOSTILE}
    more = {"url": "http://127.0.0.1/datasets/a/b", "private": True, "tag": "build-0", "commit": "", "present": 0}
    summary.show_pushed(SimpleNamespace(uploaded=planned, deleted=(HOSTILE[0],), **more))  # type: ignore[arg-type]
    rows = dict.fromkeys(planned, 123_456_789)
    summary.show_exported(SimpleNamespace(rows=rows, left_out=(), format="text", folder="x"))  # type: ignore[arg-type]
    assert "[bold red]不是标记[/]" in told(capsys).replace("\n", "")


def test_json_of_a_row_is_what_the_row_holds(tmp_path: Path) -> None:
    rows = [{"id": f"a/{n}", "source": "a", "text": text} for n, text in enumerate(HOSTILE[:4])]
    pq.write_table(pa.Table.from_pylist(rows, COLUMNS["cpt"]), tmp_path / "train-00000-of-00001.parquet")
    manifest = {"stage": "cpt", "rows": {"train": 4}, "sources": {}, "files": {"train-00000-of-00001.parquet": ""}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    _, found = summary.sample(tmp_path, 4, 0)
    assert json.loads(json.dumps(found)) == rows


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_plain_text_acts_on_nothing(text: str) -> None:
    assert not set(ACTS) & set(summary._plain(text))
