"""Archives are seen through; what they may not hold, and what the disk refuses, is told in one sentence."""

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from chimed.errors import RowError, SourceError
from chimed.records import Split
from chimed.sources import archives
from chimed.sources.archives import RawFile, find, fingerprint
from chimed.sources.readers import Slice, rows
from chimed.sources.spec import Row, Source

CSV = "q,a\n头痛,休息\n".encode()
ROW = {"q": "头痛", "a": "休息"}


def source(files: Mapping[str, Split] | None = None) -> Source:
    return Source(
        name="s",
        title="S",
        homepage="",
        license="",
        files=files or {"**": "train"},
        parse=lambda _: (),
        shapes=("passage",),
        stages=("cpt",),
    )


def put(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / "s" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def zipped(members: Mapping[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


def everything(tmp_path: Path) -> dict[str, list[Row | str]]:
    """By the name of the file: its rows, or the reasons of their rejects."""
    files, _ = find(source(), tmp_path)
    return {
        file.name: [row.reason if isinstance(row, RowError) else row for _, row in rows(source(), Slice(file))]
        for file in files
    }


class TestFind:
    def test_the_first_glob_that_matches_decides(self, tmp_path: Path) -> None:
        for name in ("b/test.csv", "a.csv", "a.csv.gz", "notes.md", "b/c/d.jsonl"):
            put(tmp_path, name, CSV)
        put(tmp_path, "z.zip", zipped({"x.csv": CSV, "b/test.csv": CSV, "readme.txt": b"x"}))
        files, unread = find(source({"**/test.csv": "test", "*.csv": "train", "b/**": "validation"}), tmp_path)
        assert [(file.name, file.split) for file in files] == [
            ("a.csv", "train"),
            ("a.csv.gz", "train"),
            ("b/c/d.jsonl", "validation"),
            ("b/test.csv", "test"),
            ("z.zip!b/test.csv", "test"),
            ("z.zip!x.csv", "train"),
        ]
        assert [(left.name, left.why) for left in unread] == [
            ("notes.md", "no pattern of the source matches it"),
            ("z.zip!readme.txt", "no pattern of the source matches it"),
        ]
        assert files[-1].size == len(CSV)

    @pytest.mark.parametrize(
        ("glob", "name", "matches"),
        [
            ("*.csv", "a.csv", True),
            ("*.csv", "b/a.csv", False),
            ("**/*.csv", "a.csv", True),
            ("**/*.csv", "b/c/a.csv", True),
            ("**", "b/c/a.csv", True),
            ("样例_*[0-9]*.csv", "样例_内科5000-6000.csv", True),
            ("a?.csv", "a1.csv", True),
            ("a[!0-9].csv", "a1.csv", False),
            ("a+(1).csv", "a+(1).csv", True),
            ("train.csv", "train.csv.zst", True),
            ("Train.csv", "train.csv", False),
        ],
    )
    def test_globs(self, tmp_path: Path, glob: str, name: str, matches: bool) -> None:
        put(tmp_path, name, CSV)
        assert bool(find(source({glob: "train"}), tmp_path)[0]) is matches

    def test_what_no_one_wants_is_named(self, tmp_path: Path) -> None:
        for name in (
            ".DS_Store",
            ".cache/a.csv",
            "__MACOSX/a.csv",
            "hf/dataset_info.json",
            "hf/state.json",
            "hf/d.arrow",
        ):
            put(tmp_path, name, CSV)
        put(tmp_path, "dataset_info.json", CSV)
        put(tmp_path, "a.zip", zipped({"__MACOSX/._a.csv": b"x", "a.csv": CSV, "b/.DS_Store": b"x"}))
        files, unread = find(source(), tmp_path)
        assert [file.name for file in files] == ["a.zip!a.csv", "dataset_info.json", "hf/d.arrow"]
        assert {left.name: left.why for left in unread} == {
            ".DS_Store": "hidden, or litter of an operating system",
            ".cache/a.csv": "hidden, or litter of an operating system",
            "__MACOSX/a.csv": "hidden, or litter of an operating system",
            "a.zip!__MACOSX/._a.csv": "hidden, or litter of an operating system",
            "a.zip!b/.DS_Store": "hidden, or litter of an operating system",
            "hf/dataset_info.json": "metadata",
            "hf/state.json": "metadata",
        }

    def test_names_are_composed(self, tmp_path: Path) -> None:
        put(tmp_path, unicodedata.normalize("NFD", "Ménière.csv"), CSV)
        assert [file.name for file in find(source({"Ménière.csv": "train"}), tmp_path)[0]] == ["Ménière.csv"]
        put(tmp_path, "Ménière.csv", CSV)
        with pytest.raises(SourceError, match="two files are called"):
            find(source(), tmp_path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match=r"found nothing; chimed sources"):
            find(source(), tmp_path)
        (tmp_path / "s").write_bytes(b"")
        with pytest.raises(SourceError, match="found a file"):
            find(source(), tmp_path)

    def test_links(self, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "a.csv").write_bytes(CSV)
        folder = tmp_path / "s"
        folder.mkdir()
        (folder / "linked").symlink_to(elsewhere)
        (folder / "b.csv").symlink_to(elsewhere / "a.csv")
        (elsewhere / "loop").symlink_to(folder)
        (folder / "gone.txt").symlink_to(elsewhere / "nothing")
        files, unread = find(source({"**/*.csv": "train"}), tmp_path)
        assert [file.name for file in files] == ["b.csv", "linked/a.csv"]
        assert {left.name: left.why for left in unread} == {
            "gone.txt": "a link to nothing",
            "linked/loop": "a link back to a folder that holds it",
        }
        with pytest.raises(SourceError, match=r"gone\.txt: a link to .*nothing, which is not there"):
            find(source(), tmp_path)

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "s").mkdir()
        os.mkfifo(tmp_path / "s" / "pipe.csv")
        assert find(source(), tmp_path)[1][0].why == "not a regular file"

    def test_what_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path, "a.csv", CSV)
        (file,) = find(source(), tmp_path)[0]

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(SourceError, match=r"a\.csv: not allowed to read it; change its permissions"):
            list(rows(source(), Slice(file)))


class TestCompression:
    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, zstd])
    @pytest.mark.parametrize("name", ["a.csv.gz", "a.csv"])
    def test_is_told_by_content(self, tmp_path: Path, pack: Callable[[bytes], bytes], name: str) -> None:
        put(tmp_path, name, pack(CSV))
        assert everything(tmp_path) == {name: [ROW]}
        put(tmp_path, name, pack(b"q,a\n") + pack("头痛,休息\n".encode()))
        assert everything(tmp_path) == {name: [ROW]}

    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, lambda data: bz2.compress(data, 1), zstd])
    def test_a_cut_file_gives_its_rows_and_one_reject(self, tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
        noise = random.Random(0).randbytes(600_000).hex()
        lines = [noise[i : i + 60] for i in range(0, len(noise), 60)]
        packed = pack("\n".join(lines).encode())
        put(tmp_path, "a.txt", packed[: len(packed) * 2 // 3])
        (found,) = everything(tmp_path).values()
        assert found.pop() == "truncated-archive"
        assert [row["text"] for row in found if isinstance(row, dict)] == lines[: len(found)]
        assert len(found) > len(lines) // 2
        put(tmp_path, "a.txt", packed[:12])
        assert everything(tmp_path) == {"a.txt": ["truncated-archive"]}

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        packed = bytearray(gzip.compress(random.Random(0).randbytes(50_000).hex().encode()))
        packed[30_000:30_020] = b"\xff" * 20
        put(tmp_path, "a.txt", bytes(packed))
        assert everything(tmp_path)["a.txt"][-1] == "damaged-archive"

    def test_the_stem_is_that_of_the_text(self, tmp_path: Path) -> None:
        put(tmp_path, "本草.txt.gz", gzip.compress("甘草味甘".encode()))
        put(tmp_path, "a.zip", zipped({"x/伤寒.txt": "太阳之为病".encode()}))
        found = everything(tmp_path)
        assert found["本草.txt.gz"] == [{"text": "甘草味甘", "name": "本草"}]
        assert found["a.zip!x/伤寒.txt"] == [{"text": "太阳之为病", "name": "伤寒"}]

    def test_tables_inside(self, tmp_path: Path) -> None:
        path = tmp_path / "made.parquet"
        pa.parquet.write_table(pa.Table.from_pylist([ROW]), path)
        put(tmp_path, "a.zip", zipped({"a.parquet": path.read_bytes(), "b.csv.gz": gzip.compress(CSV)}))
        put(tmp_path, "b.parquet.gz", gzip.compress(path.read_bytes()))
        assert list(everything(tmp_path).values()) == [[ROW]] * 3

    def test_thrice_is_too_often(self, tmp_path: Path) -> None:
        put(tmp_path, "a.csv", gzip.compress(gzip.compress(gzip.compress(gzip.compress(CSV)))))
        assert everything(tmp_path) == {"a.csv": ["nested-archive"]}


class TestZip:
    @pytest.mark.parametrize(
        "name", ["/etc/passwd.csv", "../a.csv", "x/../../a.csv", "C:/a.csv", "c:a.csv", "..\\a.csv", "\\\\host\\a.csv"]
    )
    def test_paths_that_lead_out(self, tmp_path: Path, name: str) -> None:
        put(tmp_path, "a.zip", zipped({name: CSV, "b.csv": CSV}))
        found = everything(tmp_path)
        assert sorted(map(str, found.values())) == sorted(map(str, [["unsafe-path"], [ROW]]))
        assert {file.split for file in find(source({"b.csv": "test"}), tmp_path)[0]} == {"test"}

    def test_links_passwords_and_archives_within(self, tmp_path: Path) -> None:
        link = zipfile.ZipInfo("link.csv")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        put(tmp_path, "a.zip", zipped({link: b"/etc/passwd", "in.zip": zipped({"a.csv": CSV})}))
        locked = bytearray(zipped({"a.csv": CSV}))
        locked[6] |= 1
        locked[locked.index(b"PK\x01\x02") + 8] |= 1
        put(tmp_path, "b.zip", bytes(locked))
        put(tmp_path, "c.zip.gz", gzip.compress(zipped({"a.csv": CSV})))
        assert everything(tmp_path) == {
            "a.zip!link.csv": ["unsafe-path"],
            "a.zip!in.zip": ["nested-archive"],
            "b.zip!a.csv": ["encrypted-member"],
            "c.zip.gz": ["nested-archive"],
        }

    def test_bombs_are_refused_unread(self) -> None:
        info = zipfile.ZipInfo("a.csv")
        info.file_size, info.compress_size = (1 << 30) + 1, 1 << 20
        assert str(archives.refusal(info)).startswith("suspicious-archive: 'a.csv' unpacks to 1,073,741,825 bytes")
        info.compress_size = info.file_size // 100
        assert archives.refusal(info) is None

    @pytest.mark.parametrize("encoding", ["gb18030", "utf-8", "cp437"])
    def test_names_without_the_flag_for_utf8(self, tmp_path: Path, encoding: str) -> None:
        name = "Menière.csv" if encoding == "cp437" else "对话/内科问答.csv"
        raw = name.encode(encoding)
        data = zipped({"x" * len(raw): CSV}).replace(b"x" * len(raw), raw)
        put(tmp_path, "a.zip", data)
        assert everything(tmp_path) == {f"a.zip!{name}": [ROW]}

    def test_names_with_backslashes(self, tmp_path: Path) -> None:
        put(tmp_path, "a.zip", zipped({"data\\a.csv": CSV}))
        assert everything(tmp_path) == {"a.zip!data/a.csv": [ROW]}

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_that_stands_twice(self, tmp_path: Path) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a.csv", b"q,a\nold,old\n")
            archive.writestr("a.csv", CSV)
        put(tmp_path, "a.zip", out.getvalue())
        assert everything(tmp_path) == {"a.zip!a.csv": [ROW]}
        assert [left.why for left in find(source(), tmp_path)[1]] == ["a later member of the archive has the same name"]

    def test_cut_and_empty_zips_are_counted(self, tmp_path: Path) -> None:
        put(tmp_path, "a.zip", zipped({"a.csv": CSV})[:-30])
        put(tmp_path, "b.zip", zipped({}))
        assert everything(tmp_path) == {"a.zip": ["truncated-archive"], "b.zip": ["empty-file"]}
        assert [file.name for file in find(source({"*.csv": "train"}), tmp_path)[0]] == ["a.zip"]

    def test_a_member_whose_bytes_are_damaged(self, tmp_path: Path) -> None:
        data = bytearray(zipped({"a.csv": CSV}, zipfile.ZIP_STORED))
        data[data.index("头".encode())] ^= 1
        put(tmp_path, "a.zip", bytes(data))
        assert everything(tmp_path)["a.zip!a.csv"][-1] == "damaged-archive"

    def test_a_zip_that_was_replaced(self, tmp_path: Path) -> None:
        path = put(tmp_path, "a.zip", zipped({"a.csv": CSV}))
        (file,) = find(source(), tmp_path)[0]
        assert len(list(rows(source(), Slice(file)))) == 1
        path.write_bytes(zipped({"b.csv": CSV * 2}))
        with pytest.raises(SourceError, match=r"the member 'a\.csv' is gone"):
            list(rows(source(), Slice(file)))


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", CSV)
    file = RawFile("a.csv", path, "", "train", len(CSV))
    first = fingerprint(file)
    assert (first.size, len(first.sha256)) == (len(CSV), 64)
    assert fingerprint(file) == first
    path.write_bytes(CSV.replace(b"q", b"Q"))
    assert fingerprint(file).sha256 != first.sha256
