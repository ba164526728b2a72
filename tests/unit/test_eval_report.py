"""The report: every table, nothing from outside as markup, Chinese in the plots, the same bytes again."""

import base64
import hashlib
import io
import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from qilin.evaluate import plots
from qilin.evaluate.page import html
from qilin.evaluate.report import EXAM, PUBLISHED, WARNING, markdown, share, tables
from qilin.evaluate.stats import compare, wilson

pytest.importorskip("matplotlib", reason="needs the train extra: pip install -e '.[train]'")

EVIL = "<script>alert(1)</script>|内科"


def exam(right: int) -> dict[str, Any]:
    every = asdict(wilson(right, 40))
    groups = {"department": {EVIL: asdict(wilson(right // 2, 20)), "妇产科": asdict(wilson(right // 2, 20))}}
    groups["answers"] = {"1": asdict(wilson(right, 39)), "2": asdict(wilson(0, 1))}
    return {
        "n": 40,
        "correct": right,
        "failures": 1,
        "cut": 3,
        "accuracy": every,
        "f1": 0.3,
        "chance": 0.2,
        "detectable": 0.25,
        "groups": groups,
        "reasons": {"no letters": 1},
        "official": [
            {"script": "lora", "n": 0, "failures": 40, "accuracy": None, "precision": None, "recall": None, "f1": None}
        ],
    }


@pytest.fixture
def result() -> dict[str, Any]:
    arms = {
        arm: {method: exam(right) for method in ("sets", "generation")} for arm, right in (("closed", 12), ("rag", 30))
    }
    pair = asdict(compare([True] * 12 + [False] * 28, [True] * 30 + [False] * 10))
    part = {"accuracy": asdict(wilson(9, 10)), "closed": asdict(wilson(3, 10))}
    grounded = {
        "n": 40,
        "shown": 40,
        "each": 3.0,
        "hits": asdict(wilson(10, 40)),
        "replies": 40,
        "accuracy": {"sets": {"hit": part, "miss": None}},
        "cited": asdict(wilson(8, 40)),
        "unknown": asdict(wilson(2, 40)),
    }
    return {
        "answerer": {"path": EVIL, "sha256": "a" * 64},
        "frame_sha256": "b" * 64,
        "recipe_sha256": "c" * 64,
        "items_sha256": "d" * 64,
        "data": {"sha256": "e" * 64},
        "index": {"sha256": "f" * 64, "passages": 9},
        "shots": [],
        "versions": {"python": "3.11"},
        "exam": {"cmexam/test": arms},
        "arms": {"cmexam/test": {"rag against closed": {"sets": pair, "generation": pair}}},
        "passages": {"exam": {"cmexam/test": {"rag": grounded}}},
    }


class Reader(HTMLParser):
    """The tags of a page, and the text of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[bytes] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(base64.b64decode((dict(attrs)["src"] or "").removeprefix("data:image/png;base64,")))


def test_tables_hold_what_was_measured_beside_what_was_published(result: dict[str, Any]) -> None:
    found = {table.title: table for table in tables(result)}
    first = found["Exam: cmexam/test"]
    assert first.rows[0] == (
        EVIL,
        "closed",
        "sets",
        share(asdict(wilson(12, 40))),
        "40",
        "30.0",
        "20.0",
        "1 (no letters 1)",
        "3",
        "measured",
    )
    assert [row[-1] for row in first.rows[4:]] == [PUBLISHED] * len(EXAM)
    assert "differ by 25.0 points" in first.note
    arms = found["cmexam/test: arms compared"]
    assert arms.rows[0] == ("rag against closed", "sets", "40", "45.0 (27.2 to 58.5)", "18", "0", "< 0.0001")
    hits = found["cmexam/test: accuracy given hit and given miss"]
    assert hits.rows[0] == ("rag", "sets", "40", "hit", "10", "25.0", "90.0 (59.6 to 98.2)", "30.0 (10.8 to 60.3)")
    assert hits.rows[1] == ("rag", "sets", "40", "miss", "0", "0.0", "–", "–")
    assert "under two characters never count" in hits.note
    assert found["cmexam/test: citations"].rows[0][1:] == ("40", "20.0 (10.5 to 34.8)", "5.0 (1.4 to 16.5)")
    assert found["cmexam/test: the official scripts"].rows[0] == ("closed", "lora", "0", "40", *["–"] * 4)


def test_the_page_loads_nothing_and_shows_text_as_text(result: dict[str, Any]) -> None:
    pictures = plots.draw(result)
    page = html(result, pictures)
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert reader.pictures == [pictures["arms-cmexam-test.png"], pictures["departments-cmexam-test.png"]]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    assert base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode() in page
    assert not re.search(r"https?://|@import|url\(", page)
    assert WARNING in page
    for part in ("prefers-color-scheme:dark", "max-width:600px", 'name="viewport"', "ffffffffffffffff"):
        assert part in page


def test_markdown_keeps_its_tables_and_no_markup(result: dict[str, Any]) -> None:
    text = markdown(result, plots.draw(result))
    assert "<script" not in text
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")]
    assert all(width > 3 for width in widths)
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    assert "](departments-cmexam-test.png)" in text
    assert WARNING in text


def test_plots_are_the_same_again_and_hold_every_character(result: dict[str, Any]) -> None:
    # matplotlib warns of a character that its fonts lack, and a warning is an error here.
    from matplotlib.image import imread

    first = plots.draw(result)
    assert sorted(first) == ["arms-cmexam-test.png", "departments-cmexam-test.png"]
    assert first == plots.draw(result)
    for data in first.values():
        pixels = imread(io.BytesIO(data))
        assert pixels.shape[1] == 1200
        assert pixels[..., :3].std() > 0.05


def test_without_a_chinese_font_departments_are_rows_of_the_table(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "_chinese", lambda: "")
    assert plots.labels(["内科", "ICU", "妇产科"]) == ["row 1", "ICU", "row 3"]
    assert plots.draw(result)


def test_one_arm_has_nothing_to_compare(result: dict[str, Any]) -> None:
    del result["exam"]["cmexam/test"]["rag"]
    result["arms"], result["passages"] = {}, {}
    assert list(plots.draw(result)) == ["departments-cmexam-test.png"]
    assert "arms compared" not in markdown(result)
