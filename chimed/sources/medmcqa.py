"""MedMCQA: items of Indian medical entrance exams in English, with explanations; here an evaluation set.

Pal et al. 2022, arXiv 2203.14371. JSON lines under `.json`; the right option `cop` counts from 1. The copy on Hugging
Face has the same columns and counts from 0: a row of it cannot be told from a row of the release unless its answer is
0, so such rows are rejected and the build stops. The training split stays unread, for this corpus is Chinese.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Exam
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin
from chimed.sources.spec import Row, Source, first, need

_WRAP = re.compile(r"(?<=[a-z,])[ \t]*\r?\n[ \t]*(?=[a-z])")  # where the line of a printed page ended
_OPTIONS = ("opa", "opb", "opc", "opd")


def parse(row: Row) -> Iterable[Body]:
    """The exam item of a row.

    >>> row = {"question": "Vitamin C deficiency causes", "opa": "Rickets", "opb": "Scurvy", "opc": "Beriberi"}
    >>> parse(row | {"opd": "Pellagra", "cop": 2, "exp": None, "subject_name": "Medicine"})[0].answer
    'B'
    """
    if not row.keys() >= {"question", *_OPTIONS}:
        raise unknown_columns(row, "question, opa, opb, opc, opd, cop, exp, subject_name")
    question = _WRAP.sub(" ", need(row, "question"))
    number = first(row, "cop")
    if number in {"", "-1"}:
        raise RowError("no-answer", question[:80], held=question)
    if number == "0":
        raise RowError("answer-counts-from-zero", "this copy numbers options from 0, the release's dev.json from 1")
    if number not in {"1", "2", "3", "4"}:
        raise RowError("answer-not-an-option", f"found {number!r}, the options are 1 to 4")
    return (
        Exam(
            question=question,
            options=tuple(need(row, option) for option in _OPTIONS),
            answer="ABCD"[int(number) - 1],
            explanation=first(row, "exp"),
            discipline=first(row, "subject_name"),
        ),
    )


SOURCE = Source(
    name="medmcqa",
    title="MedMCQA",
    homepage="https://github.com/medmcqa/medmcqa",
    license="MIT",
    files={"**/*dev*": "validation", "**/*valid*": "validation", "**/*test*": "test"},
    parse=parse,
    shapes=("exam",),
    stages=("eval",),
    origin=Origin(
        where="Download the release by hand from the Google Drive link in the README of "
        "https://github.com/medmcqa/medmcqa and unpack dev.json; the copy on Hugging Face counts its answers otherwise",
    ),
)
