"""Rows parsed at once are those parsed one by one: on any text, in any pieces, and in a build."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chimed import build, partition
from chimed.errors import RowError
from chimed.recipe import load_recipe
from chimed.records import SCHEMAS, Record, to_table
from chimed.sources import cpubmed_kg, lines, meddialog, readers
from chimed.sources.lines import Several
from chimed.sources.meddialog import _FIELDS, _NOTHING, _PLATFORM_MARKS, _SENT
from chimed.sources.spec import Many, Row, Source

PLAIN = [
    *(
        "",
        " ",
        "\u3000",
        "。，",
        "+",
        "您好，不客气。",
        "\xa0您好\x1f",
        "……",
        "：咳嗽",
        "，咳嗽",
        "病人",
        "病人：您好",
        "Dialogue：",
    ),
    *("病情描述（主要症状、就诊医院等）：发热", "病情描述（主要", "病情描述（主要）发热", "一二三四五六七八九十：是"),
    *("一：是", "总：：无", "初步印象：感冒", "病情摘要及初步印象：感冒", "建议：感冒", "总结建议：多喝水", "感冒"),
    *("疾病：疾病：：肺炎", "疾病：\u3000", "疾病:。肺炎", "无（2020-03-19填写）", "无(2020-03-19测量) "),
    *_SENT,
]
ODD = [
    *("Doctor faculty", "Description", "Dialogue", "Diagnosis and suggestions", " Dialogue\u3000"),
    *("病人：", "医生:", "患者：", " 医生： ", "id=7", " id=8", "id=9x", "id=", "id=１２"),
    *(
        "①",
        "々",
        "Ａ",
        "，， 好",
        "，\u3000好",
        "（2020-03-19填写）",
        "（2020-03-19填写）后来",
        "(20-03-19填写)",
        "填写）",
    ),
    *("-03-19填写）", "药品", "我已完成了", *_PLATFORM_MARKS),
]
NAME = st.sampled_from(sorted(_FIELDS))
COLON = st.sampled_from([*"：：：::", "（近来）：", "： "])
VALUE = st.sampled_from([*sorted(_NOTHING), "咳嗽", "疾病：咳嗽", "。咳嗽", "肺炎（2020-03-19填写）", "肺炎\n两天\n"])
FIELD = st.tuples(NAME, COLON, VALUE).map("".join).filter(lambda field: "药品" not in field and "疾病诊断" not in field)
TEXT = st.integers(0, 40).flatmap(lambda n: st.sampled_from(PLAIN) if n else st.sampled_from(ODD) | st.text(max_size=3))
TURN = st.tuples(st.sampled_from(["病人：", "医生：", " 患者:"]), TEXT | FIELD, TEXT).map("\n".join)
FORM = st.lists(FIELD | TEXT, max_size=5).map("\n".join)
PART = st.one_of(
    TEXT.map("Doctor faculty\n{}\n".format),
    FORM.map("Description\n{}\n".format),
    st.lists(TURN, max_size=4).map("\n".join).map("Dialogue\n{}\n".format),
    FORM.map("Diagnosis and suggestions\n{}\n".format),
)
USUAL = st.tuples(
    FORM,
    st.lists(TURN, min_size=1, max_size=6).map("\n".join),
    st.just("") | FORM.map("\nDiagnosis and suggestions\n{}\n".format),
).map(lambda said: f"Doctor faculty\n天坛医院 神经内科\n\nDescription\n{said[0]}\n\nDialogue\n{said[1]}\n{said[2]}")
BLOCKS = st.lists(USUAL | st.lists(PART | TEXT, max_size=5).map("\n".join), min_size=1, max_size=5)


class Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


def pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def one(row: Row | RowError, source: Source) -> object:
    try:
        if isinstance(row, RowError):
            raise row
        (found,) = source.parse(row)
        return to_table(source.shapes[0], [Record("s", "id", "train", found)]).to_pylist()[0]
    except RowError as error:
        return str(error)


def read(rows: Several, source: Source) -> dict[int, object]:
    """What the rows give, by their numbers: a record, or why there is none."""
    found: dict[int, object] = {}
    schema = SCHEMAS[source.shapes[0]]
    for number, row in rows:
        if not isinstance(row, Many):
            found[number] = one(row, source)
            continue
        length = row.count - len(row.alone)
        columns = [pa.repeat("s/id", length), pa.repeat("train", length), *row.columns]
        held = iter(pa.Table.from_arrays(columns, schema=schema).to_pylist())
        for place in range(row.count):
            found[number + place] = one(row.alone[place], source) if place in row.alone else next(held)
        assert next(held, None) is None
    return found


@given(BLOCKS, st.sampled_from([1, 7, 60, 1 << 20]), st.booleans())
@settings(deadline=None)
@example(["Dialogue\n病人：\n初步印象：感冒\n病情摘要及初步印象：感冒\n医生：\n+"], 60, False)
@example(["Dialogue\n病人：\n？\n医生：\n好"], 1 << 20, False)
@example(
    ["Description\n疾病：肺炎\n希望获得的帮助：治\n咳嗽\n\nDialogue\n医生：\n好", "", "Dialogue\n患者："], 60, True
)
def test_blocks_at_once_are_those_one_by_one(blocks_: list[str], size: int, led: bool) -> None:
    text = "".join(f"id={number}\n{block}\n" for number, block in enumerate(blocks_, 1))
    raw = (f"\n{text}" if led else text).encode("utf-8", "replace")
    expected = read(lines.runs(pieces(raw, size), "2010", meddialog.SOURCE.opens), meddialog.SOURCE)
    found = lines.many_blocks(pieces(raw, size), "2010", meddialog.SOURCE.opens, meddialog.blocks)
    assert read(found, meddialog.SOURCE) == expected


USUALLY = (
    "id={0}\nhttps://example.org/{0}.htm\nDoctor faculty\n安贞医院  心内科\n\n"
    "Description\n疾病：肺炎\n病情描述（症状）：咳嗽{0}天（2020-03-19填写）\n既往病史：无\n"
    "希望获得的帮助：怎么治\n患病多久：{0}天\n\n"
    "Dialogue\n医生：\n感谢您的信任，病情资料我已详细阅读。\n病人：\n拍过片子\n　第{0}次\n"
    "医生：\n先查血常规，{0}天后复查。\n病人：\n谢谢\n\n"
)


def test_a_usual_consultation_is_read_at_once() -> None:
    text = "".join(USUALLY.format(number) for number in range(3)) + "id=3\n\nDialogue\n病人：\n需求\n\n"
    found = meddialog.blocks(text.encode(), "2010")
    assert found is not None
    assert (found.count, list(found.alone)) == (4, [3])
    assert found.alone[3] == {"text": "id=3\n\nDialogue\n病人：\n需求\n", "name": "2010"}
    turns, department = (column[1].as_py() for column in found.columns)
    assert department == "心内科"
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    form = "疾病：肺炎\n病情描述：咳嗽1天\n既往病史：无\n患病多久：1天\n希望获得的帮助：怎么治"
    assert turns[0]["content"] == f"{form}\n拍过片子\n第1次"
    assert turns[1]["content"] == "先查血常规，1天后复查。"


@pytest.mark.parametrize("text", ["前言\nid=1\n", "id=1\r\n", "id=1\n\0\n", "id= 1\n", "id=1\nid=２\n", "id=1"])
def test_text_that_is_not_whole_blocks_of_plain_lines_is_left(text: str) -> None:
    assert meddialog.blocks(text.encode(), "2010") is None
    assert meddialog.blocks(b"id=1\n\xff\n", "2010") is None


def test_a_block_without_end_is_a_reject_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LIMIT", 1000)
    raw = USUALLY.format(1).encode() + b"id=2\n" + b"x\n" * 5000 + USUALLY.format(3).encode()
    opens = meddialog.SOURCE.opens
    found = read(lines.many_blocks(pieces(raw, 100), "2010", opens, meddialog.blocks), meddialog.SOURCE)
    assert found == read(lines.runs(pieces(raw, 100), "2010", opens), meddialog.SOURCE)
    assert str(found[2]).startswith("row-too-large")


ENTITY = st.tuples(
    st.sampled_from(["肺炎", "咳嗽", "百日咳", " 肺炎", "肺 炎", "A@B", "", "药物"]),
    st.sampled_from([*["@@疾病"] * 6, "@@症状", "@@药物", "@@", "", "@", "@@ 疾病", "@@疾病\x85", "@@疾病@@症状"]),
).map("".join)
RELATION = st.sampled_from(
    [
        *cpubmed_kg._RELATIONS,
        *cpubmed_kg._RELATIONS.values(),
        "治疗方法",
        "影像学检查",
        "放射治疗",
        "",
        " 预防",
        "病@@因",
    ]
)
TRIPLE = st.tuples(ENTITY, RELATION, ENTITY, st.sampled_from([*[""] * 8, "\t", "\r", " ", "\x1f"])).map(
    lambda cells: "\t".join(cells[:3]) + cells[3]
)
TRIPLES = st.lists(st.integers(0, 15).flatmap(lambda n: TRIPLE if n else st.text(max_size=3)), min_size=1, max_size=8)


@given(TRIPLES.map("\n".join), st.sampled_from([1, 40, 1 << 20]), st.booleans())
@settings(deadline=None)
def test_triples_at_once_are_those_one_by_one(text: str, size: int, ended: bool) -> None:
    raw = (f"{text}\n" if ended else text).encode("utf-8", "replace")
    expected = read(lines.text_lines(pieces(raw, size), 1, "v2"), cpubmed_kg.SOURCE)
    found = lines.many_lines(pieces(raw, size), 1, "v2", cpubmed_kg.triples)
    assert read(found, cpubmed_kg.SOURCE) == expected


def test_a_usual_triple_is_read_at_once_and_one_with_prose_alone() -> None:
    text = "肺炎@@疾病\t临床表现\t咳嗽@@症状\n肺炎@@疾病\t发病率\t2%@@其他\n阿莫西林@@药物\t预防\t肺炎@@疾病\n"
    found = cpubmed_kg.triples(text.encode(), "v2")
    assert found is not None
    assert (found.count, list(found.alone)) == (3, [1])
    assert [column.to_pylist() for column in found.columns[:3]] == [
        ["肺炎", "阿莫西林"],
        ["症状", "预防"],
        ["咳嗽", "肺炎"],
    ]
    for torn in (b"\n", b"\0\n", b"\xff\n", b"\r\n"):
        assert cpubmed_kg.triples(text.encode() + torn, "v2") is None


def test_a_build_holds_the_same_rows_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw/meddialog").mkdir(parents=True)
    text = "".join(
        USUALLY.format(number) if number % 3 else f"id={number}\n\nDialogue\n医生：\n好\n\n" for number in range(1, 40)
    )
    (tmp_path / "raw/meddialog/2010.txt").write_text(
        text.replace("患病多久：7天", "药品：阿司匹林片"), encoding="utf-8"
    )
    usual = "".join(USUALLY.format(number) for number in range(50, 60))
    (tmp_path / "raw/meddialog/2011.txt").write_text(usual + "id=60\n\n", encoding="utf-8")
    monkeypatch.setattr(partition, "BATCH_UNITS", 10)
    monkeypatch.setattr(build, "SMALL_FILE", 0)  # a part a file

    def parts(name: str, many: Callable[..., Any]) -> dict[str, list[dict[str, Any]]]:
        monkeypatch.setattr(partition, "many", many)
        out = tmp_path / name
        build.build(build.Request(load_recipe(None), None, tmp_path / "raw", out, ("sft",), 1), Silent())
        found = sorted(out.glob(".work/parts/*/*.arrow"))
        return {"/".join(path.parts[-2:]): pa.ipc.open_file(path).read_all().to_pylist() for path in found}

    at_once = parts("at-once", readers.many)
    assert sorted(len(rows) for name, rows in at_once.items() if name.endswith("units.arrow")) == [11, 39]
    assert at_once == parts("one-by-one", readers.rows)
