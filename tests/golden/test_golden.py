"""Golden rows: every source reads its hand-written raw files into exactly the records and rejects of `expected.jsonl`.

`UPDATE_GOLDEN=1 pytest tests/golden` writes the files anew; read the difference before you commit it.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimed.errors import RowError
from chimed.records import Body, Turn, shape_of
from chimed.sources import discover
from chimed.sources.readers import find, rows, slices
from chimed.sources.spec import Source

GOLDEN = Path(__file__).parent
SOURCES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir() and folder.name != "__pycache__")
EXPECTED = "expected.jsonl"


def _plain(body: Body) -> dict[str, Any]:
    columns = {name: _turns(value) for name, value in body._asdict().items() if value}
    return {"shape": shape_of(body), **columns}


def _turns(value: Any) -> Any:
    if isinstance(value, tuple) and isinstance(value[0], Turn):
        return [turn._asdict() for turn in value]
    return value


def read(source: Source, raw: Path) -> Iterator[dict[str, Any]]:
    """What a source gives for the files below RAW/<source>/: a line a record or reject, keyed as a build keys them."""
    files, unread = find(source, raw)
    for left in unread:
        yield {"unread": left.name}
    for file in files:
        if file.name == EXPECTED:
            continue
        for part in slices(source, file):
            for number, row in rows(source, part):
                key = f"{file.name}#{number}"
                try:
                    if isinstance(row, RowError):
                        raise row
                    bodies = tuple(source.parse(row))
                except RowError as reject:
                    yield {"key": key, "reject": reject.reason}
                    continue
                for place, body in enumerate(bodies, 1):
                    yield {"key": key if len(bodies) == 1 else f"{key}/{place}", "split": file.split, **_plain(body)}


@pytest.mark.parametrize("name", SOURCES)
def test_golden(name: str) -> None:
    found = [line for line in read(discover()[name], GOLDEN) if line.get("unread") != EXPECTED]
    expected = GOLDEN / name / EXPECTED
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in found), encoding="utf-8")
    known = [json.loads(line) for line in expected.read_text(encoding="utf-8").splitlines()]
    assert json.loads(json.dumps(found)) == known


@pytest.mark.parametrize("name", SOURCES)
def test_golden_rows_show_a_reject(name: str) -> None:
    lines = (GOLDEN / name / EXPECTED).read_text(encoding="utf-8").splitlines()
    assert any("reject" in json.loads(line) for line in lines)
