"""CMExam: about 68,000 items of the Chinese National Medical Licensing Examination, with explanations.

Liu et al. 2023, arXiv 2306.03030. Three forms circulate, told apart by their columns: the tables of the release (csv or
xlsx, with or without the five annotation columns), Apollo's JSON lines (`question, option, anwer, source`, upstream's
own spelling) and a list of `conversations`.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Exam
from chimed.sources.forms import sharegpt, unknown_columns
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source, first, letters, need, split_options

# What the release writes into a cell that it has nothing for.
_NAN = {"nan", "NaN", "None", "NULL"}
_PLACEHOLDER = re.compile(r"(?:请等待更新|等待更新|暂无(?:解析|答案解析)?|无(?:解析)?|略|nan|NaN|None|NULL)[。.…！!]*")
# What ties an explanation to a course: the page of a textbook, and what was to be learnt.
_COURSE = re.compile(
    r"[（(][^（）()，。；A-Z]{0,12}P\s?(?!450)\d{1,4}(?:\s?[-～~—、，,]\s?P?\s?\d{1,4})*(?:\s*表[\d-]+)?[）)]"
    r"|掌握“[^”]{2,60}”(?:这一)?知识点[。．.]?\s*$"
)
_NO_ANNOTATION = {"不符合", "无", "其他", *_NAN}
_ANNOTATIONS = {
    "disease_group": "Disease Group",
    "department": "Clinical Department",
    "discipline": "Medical Discipline",
    "competency": "Area of Competency",
    "difficulty": "Difficulty level",
}


def parse(row: Row) -> Iterable[Body]:
    """The exam item of a row of either table, or the dialogue of a row of `conversations`.

    >>> parse({"question": "能降气化痰的药是", "option": "(A) 麦芽.\\n(B) 莱菔子.", "anwer": "(B)"})[0].options
    ('麦芽', '莱菔子')
    """
    if "Options" in row:
        return (_table(row),)
    if "option" in row:
        return (_apollo(row),)
    if isinstance(row.get("conversations"), list):
        return (sharegpt(row),)
    raise unknown_columns(row, "Question, Options, Answer")


def _table(row: Row) -> Exam:
    answer = need(row, "Answer")
    if answer in _NAN:
        raise RowError("no-answer", f"found {answer!r}")
    options = split_options(row["Options"])
    explanation = _COURSE.sub("", first(row, "Explanation"))
    notes = {field: first(row, column) for field, column in _ANNOTATIONS.items()}
    return Exam(
        question=need(row, "Question"),
        options=options,
        answer=letters(answer, len(options)),
        explanation="" if _PLACEHOLDER.fullmatch(explanation) else explanation,
        **{field: "" if note in _NO_ANNOTATION else note for field, note in notes.items()},
    )


def _apollo(row: Row) -> Exam:
    options = split_options(row["option"])
    if all(option.endswith(".") for option in options):
        options = tuple(option[:-1].rstrip() for option in options)
    return Exam(need(row, "question"), options, letters(need(row, "answer", "anwer"), len(options)))


SOURCE = Source(
    name="cmexam",
    title="CMExam",
    homepage="https://github.com/williamliujl/CMExam",
    license="Apache-2.0",
    files={"**/*train*": "train", "**/*val*": "validation", "**/*test*": "test", "**/apollo_cmexam.jsonl": "test"},
    parse=parse,
    shapes=("exam", "dialogue"),
    stages=("cpt", "sft", "dpo"),
    origin=Origin(
        github(
            "williamliujl/CMExam",
            "fadb22c89beb1b7115dc36460ba792eb96b7b972",
            "data/train.csv",
            "data/val.csv",
            "data/test_with_annotations.csv",
        ),
    ),
)
