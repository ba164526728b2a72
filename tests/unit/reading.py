"""What the tests of readers share: a source of any files, and the rows that a file of it gives."""

import json
from pathlib import Path
from typing import Any, Literal

from chimed.errors import RowError
from chimed.sources.readers import RawFile, Slice, find, rows
from chimed.sources.spec import Row, Source

QUESTIONS = [{"q": "头痛怎么办？", "a": "休息，多喝水。"}, {"q": "发热三天", "a": "建议就医\n查血常规"}]


def source(text: Literal["lines", "paragraphs", "file"] = "lines", encoding: str = "auto") -> Source:
    return Source(
        name="s", title="S", homepage="", license="", files={"**": "train"}, parse=lambda _: (),
        shapes=("passage",), stages=("cpt",), text=text, encoding=encoding,
    )  # fmt: skip


def put(tmp_path: Path, name: str, data: bytes) -> RawFile:
    path = tmp_path / "s" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    found = {file.name: file for file in find(source(), tmp_path)[0]}
    return found[name]


def read(tmp_path: Path, name: str, data: bytes, **how: Any) -> list[tuple[int, Row | str]]:
    """(number, row or the reason of its reject) of a file with these bytes."""
    file = put(tmp_path, name, data)
    found = rows(source(**how), Slice(file))
    return [(number, row.reason if isinstance(row, RowError) else row) for number, row in found]


def detail(tmp_path: Path, name: str, data: bytes, reason: str) -> str:
    file = put(tmp_path, name, data)
    return next(str(row) for _, row in rows(source(), Slice(file)) if getattr(row, "reason", "") == reason)


def lines(*objects: object) -> bytes:
    return b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in objects)
