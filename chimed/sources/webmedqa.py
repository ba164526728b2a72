"""webMedQA: 63,284 questions of Chinese health sites with the answer that was adopted and four that answer others.

He et al. 2019, BMC Medical Informatics and Decision Making 19(2):52. A line holds department, label (1 adopted, 0 not),
question id, question and answer, parted by tabs; descriptions of the format also have id and department the other way
round. The four were sampled to train rankers ("1 positive and 4 negative answers", upstream's README): answers to other
questions rank nothing among those to this one, so no preference pair is made of them. An evaluation set of 150
questions without answers circulates as JSON lines, `type, question, reference_answer`.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source, conversation, first, need

_EXPECTED = "department, label, question id, question and answer, parted by tabs"
_SAID_TWICE = re.compile(r"(.{6,}?)(?:\.{2,3}|…)?(?=\1)", re.DOTALL)  # a title and a question that begins with it
_STAMP = re.compile(r"\d{4}-\d{2}-\d{2} ?\d{2}:\d{2}(?::\d{2})?")
_TAG = re.compile(r"(?:<|&lt;)?/?\b[Bb][Rr] ?/?(?:>|&gt;)")


def parse(row: Row) -> Iterable[Body]:
    """The question with its adopted answer.

    >>> row = {"text": "皮肤科\\t1\\t7\\t手上脱皮怎么办手上脱皮怎么办，不痒\\t涂护手霜。", "name": "train"}
    >>> parse(row)[0].turns[0].content
    '手上脱皮怎么办，不痒'
    """
    if "question" in row and {"reference_answer", "answer"} & row.keys():
        question, answer = need(row, "question"), first(row, "reference_answer", "answer")
        department = first(row, "department", "class")
        label = first(row, "label") or "1"
    elif isinstance(row.get("text"), str):
        cells = [cell.strip() for cell in row["text"].lstrip("\ufeff").split("\t")]
        if len(cells) != 5 or cells[1] not in {"0", "1"}:
            raise RowError("unknown-columns", f"found {len(cells)} cells, {row['text'][:40]!r}; expected {_EXPECTED}")
        one, label, other, question, answer = cells
        department = other if one.isascii() else one
    else:
        raise unknown_columns(row, f"question, reference_answer, or text: {_EXPECTED}")
    if label != "1":
        raise RowError("not-adopted", "the answer to another question, drawn by chance")
    if not question:
        raise RowError("no-question")
    if not answer:
        raise RowError("no-answer", question[:80], held=question)
    return (Dialogue(conversation((("user", _asked(question)), ("assistant", _tidy(answer)))), department),)


def _tidy(text: str) -> str:
    return _STAMP.sub("", _TAG.sub("\n", text)).strip()


def _asked(text: str) -> str:
    return _SAID_TWICE.sub("", _tidy(text), count=1) if _SAID_TWICE.match(_tidy(text)) else _tidy(text)


SOURCE = Source(
    name="webmedqa",
    title="webMedQA",
    homepage="https://github.com/hejunqing/webMedQA",
    license="unknown",
    files={"**/*train*": "train", "**/*valid*": "validation", "**/*test*": "test", "**/*.jsonl": "test"},
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    text="lines",
    max_rejects=1.0,  # four answers of five were not adopted, and the set of 150 questions has no answers at all
    origin=Origin(
        (
            *github("hejunqing/webMedQA", "692f39ca1617872363734d6006c35aa1aaccaf74", "train.zip"),
            *github("hejunqing/webMedQA", "master", "valid.zip", "test.zip"),
        )
    ),
)
