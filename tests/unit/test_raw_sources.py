"""The real raw files, where they are at hand: every source reads almost all of its rows, and its passages are prose."""

from collections import Counter
from pathlib import Path

import pytest

from chimed.errors import RowError
from chimed.records import Fact, Passage
from chimed.sources import discover
from chimed.sources.readers import find, rows, slices
from chimed.sources.relations import RELATIONS
from chimed.sources.sections import LONG

# source -> the rows in its files, and the greatest share of them that may be rejected
ROWS = {
    "cmexam": (8_820, 0.001),
    "explaincpe": (6_857, 0.013),
    "huatuo26m": (6_000, 0),
    "xywy-kg": (8_792, 0.001),
    "medkg-triples": (329_311, 0.018),
    "toyhom": (15_740, 0),
    "cmtmedqa": (1_144, 0),
    "medicalgpt": (2_601, 0.001),
    "guidelines": (82, 0.025),
    "bentsao": (9_663, 0.008),
    "promptcblue": (19_425, 0.001),
    "disease-kg": (14_336, 0.06),
    "tcm-kg": (19_923, 0.36),
    "tcm-classics": (89, 0.11),
    "huatuogpt": (200, 0),
    "dpo-zh-demo": (1_075, 0),
    "ceval": (13_948, 0.89),
    "cmmlu": (11_917, 0),
    "medmcqa": (4_183, 0),
    "qasystem-medicalkg": (1_090, 0.003),
    "webmedqa": (150, 1),
    "meddialog": (2_804, 0.083),
}


@pytest.mark.parametrize("name", ROWS)
def test_raw_source(name: str, raw: Path) -> None:
    source = discover()[name]
    files, _ = find(source, raw)
    read = 0
    rejects: Counter[str] = Counter()
    for file in files:
        for _, row in (numbered for part in slices(source, file) for numbered in rows(source, part)):
            read += 1
            try:
                if isinstance(row, RowError):
                    raise row
                for body in source.parse(row):
                    if isinstance(body, Fact):
                        assert body.tail_type == RELATIONS[body.relation].tail
                    if isinstance(body, Passage):
                        assert name == "tcm-classics" or "。" in body.text or "；" in body.text
                        assert len(body.text) < 1.1 * LONG
                        assert "....." not in body.text
            except RowError as reject:
                rejects[reject.reason] += 1
    expected, share = ROWS[name]
    assert read == expected
    assert rejects.total() <= share * read, rejects
