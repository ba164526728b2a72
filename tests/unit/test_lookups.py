"""Rows are joined with what other files of their source say, once each, and never with the wrong split."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.errors import RowError, SourceError
from chimed.sources import lookups
from chimed.sources.archives import find, looked_up
from chimed.sources.lookups import Table
from chimed.sources.readers import rows, slices
from chimed.sources.spec import Lookup, Row, Source
from chimed.summary import sources

SPLIT_LISTS = (
    Lookup(("test.txt",), into=("a*.csv",), key="q", split="test"),
    Lookup(("dev.txt",), into=("a*.csv",), key="q", split="validation"),
    Lookup(("train.txt",), into=("a*.csv",), key="q", split="train"),
)
COLUMNS = {"content": "question", "by": "asker"}
QUESTIONS = Lookup(("q.csv",), into=("a*.csv",), key="q", columns=COLUMNS, held="content")


def source(*own: Lookup) -> Source:
    return Source("s", "S", "", "", {"*.csv": "train"}, lambda row: (), ("dialogue",), ("sft",), lookups=own)


def write(folder: Path, **files: str) -> None:
    (folder / "s").mkdir(exist_ok=True, parents=True)
    for name, content in files.items():
        (folder / "s" / name.replace("_", ".")).write_text(content, encoding="utf-8")


def read(source: Source, folder: Path) -> list[tuple[str, str, int, Row | RowError]]:
    """(file, split, row number, row) of all listings."""
    files, _ = find(source, folder)
    return [
        (file.name, file.split, number, row)
        for file in files
        for part in slices(source, file)
        for number, row in rows(source, part)
    ]


def test_a_row_gets_what_it_lacks_and_keeps_what_it_has(tmp_path: Path) -> None:
    questions, answers = "q,content,by\n1,头晕？,甲\n2,牙疼？,乙\n", "q,content,asker\n1,量血压。,\n2,看牙。,丙\n"
    write(tmp_path, q_csv=questions, a_csv=answers)
    found = [row for _, _, _, row in read(source(QUESTIONS), tmp_path)]
    assert found == [
        {"q": "1", "content": "量血压。", "asker": "甲", "question": "头晕？"},
        {"q": "2", "content": "看牙。", "asker": "丙", "question": "牙疼？"},
    ]


def test_a_row_without_the_key_or_with_everything_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, a_csv="question,asker,q\n头晕？,甲,9\n", a2_csv="question,answer\n头晕？,量血压。\n")
    found = [row for _, _, _, row in read(source(QUESTIONS), tmp_path)]
    assert found == [{"question": "头晕？", "asker": "甲", "q": "9"}, {"question": "头晕？", "answer": "量血压。"}]


@pytest.mark.parametrize(
    ("questions", "detail"),
    [
        (None, "needs q.csv, which is not there, to be joined by q"),
        ("q,content,by\n1,头晕？,甲\n", "q '7' does not stand in q.csv"),
        ("id,content\n7,头晕？\n", r"not read there: q.csv#1: found id, content; expected q, content, by"),
        ("q,content,by\n7,头晕？\n", "not read there: q.csv#1: wrong-column-count"),
        ("", "not read there: q.csv#1: empty-file"),
    ],
)
def test_a_row_that_cannot_be_joined_says_which_file_it_needs(
    questions: str | None, detail: str, tmp_path: Path
) -> None:
    write(tmp_path, a_csv="q,content\n7,量血压。\n", **({} if questions is None else {"q_csv": questions}))
    ((_, _, number, row),) = read(source(QUESTIONS), tmp_path)
    assert isinstance(row, RowError)
    assert (number, row.reason, row.held) == (1, "not-joined", "量血压。")
    assert detail in row.detail


LISTS = {"test_txt": "q,a\n1,0\n2,0\n", "dev_txt": "q,a\n2,0\n3,0\n", "train_txt": "q,a\n3,0\n4,0\n"}
ANSWERS = "q,content\n" + "".join(f"{q},答\n" for q in (1, 2, 3, 4, 5))


def test_the_strictest_list_decides_the_split_and_no_row_is_given_twice(tmp_path: Path) -> None:
    write(tmp_path, a_csv=ANSWERS, **LISTS)
    found = {number: (split, row) for _, split, number, row in read(source(*SPLIT_LISTS), tmp_path)}
    assert [found[number][0] for number in sorted(found)] == ["test", "test", "validation", "train", "train"]
    reject = found[5][1]
    assert isinstance(reject, RowError)
    assert reject.detail == "q '5' does not stand in test.txt, dev.txt, train.txt"


@pytest.mark.parametrize("lacking", LISTS)
def test_without_a_list_no_row_trains_that_might_stand_in_it(lacking: str, tmp_path: Path) -> None:
    write(tmp_path, a_csv=ANSWERS, **{name: text for name, text in LISTS.items() if name != lacking})
    found = read(source(*SPLIT_LISTS), tmp_path)
    assert sorted(number for _, _, number, _ in found) == [1, 2, 3, 4, 5]
    assert not [number for _, split, number, row in found if split == "train" and not isinstance(row, RowError)]
    assert any(isinstance(row, RowError) and lacking.replace("_", ".") in row.detail for *_, row in found)


@given(
    st.lists(st.sets(st.integers(0, 9)), min_size=3, max_size=3),
    st.sets(st.sampled_from(["test", "dev", "train"])),
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_each_row_is_given_once_whatever_the_lists_say(
    tmp_path_factory: pytest.TempPathFactory, keys: list[set[int]], there: set[str], asked: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    named = dict(zip(("test", "dev", "train"), keys, strict=True))
    lists = {f"{name}_txt": "q,a\n" + "".join(f"{q},0\n" for q in named[name]) for name in there}
    write(folder, a_csv="q,content\n" + "".join(f"{q},答\n" for q in asked), **lists)
    found = read(source(*SPLIT_LISTS), folder)
    assert sorted(number for _, _, number, _ in found) == list(range(1, len(asked) + 1))
    for _, split, number, row in found:
        listed = [name for name in ("test", "dev", "train") if name in there and asked[number - 1] in named[name]]
        expected = {"test": "test", "dev": "validation", "train": "train"}
        if not isinstance(row, RowError):
            assert split == expected[listed[0]]


def test_looked_up_files_give_no_rows_and_are_told_apart_from_unread_ones(tmp_path: Path) -> None:
    write(tmp_path, a_csv=ANSWERS, note_md="x", q_csv="q,content,by\n1,头晕？,甲\n", **LISTS)
    files, unread = find(source(QUESTIONS, *SPLIT_LISTS), tmp_path)
    assert {file.name for file in files} == {"a.csv"}
    assert [file.name for file in looked_up(files)] == ["dev.txt", "q.csv", "test.txt", "train.txt"]
    assert [left.name for left in unread] == ["note.md"]
    (tmp_path / "s" / "a.csv").unlink()
    files, unread = find(source(QUESTIONS, *SPLIT_LISTS), tmp_path)
    assert not files
    assert {left.why for left in unread if left.name != "note.md"} == {"looked up, but no row here needs it"}


def test_a_table_too_large_for_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "HELD", 1000)
    table = Table(QUESTIONS)
    with pytest.raises(SourceError, match=r"q\.csv: too large to be looked up, .*join it by q with a\*\.csv by hand"):
        table.add("q.csv", ((n, {"q": n, "content": "问" * 50, "by": ""}) for n in range(9)))


def test_the_list_of_sources_says_what_is_only_looked_up() -> None:
    (entry,) = (entry for entry in sources(None) if entry["name"] == "cmb")
    assert entry["files"]["**/*answer*"] == "looked up"
