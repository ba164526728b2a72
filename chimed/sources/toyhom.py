"""Chinese-medical-dialogue-data: 790,000 question-answer pairs of six departments.

GB18030 tables `department,title,ask,answer`, and a text form: blocks of "title,ask" and the answer, parted by blank
lines. 无 stands for an empty question. What circulates as JSON calls them `question, answer`, `ask, answer` or
`instruction, input, output`; there the instruction may say nothing but which doctor is to answer.

A program reworded most of it upstream: see `chimed.signs`.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import is_url, unknown_columns
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source, conversation, first

_NOTHING = {"无", "無", "没有", "暂无", "-", "."}
_TITLES, _ASKS, _ANSWERS = (
    ("title", "question", "query", "instruction"),
    ("ask", "input"),
    ("answer", "output", "response"),
)
_ASKED, _ANSWERED = frozenset((*_TITLES, *_ASKS)), frozenset(_ANSWERS)
_PERSONA = re.compile(
    r"(?:现在)?你是一[个名位](\S{1,12}?)(?:医生|医师|大夫|专家)，?请?(?:你)?根据(?:患者|病人)的\S{2,12}"
)


def parse(row: Row) -> Iterable[Body]:
    """The pair of a row; a title that the question repeats is not said twice.

    >>> parse({"text": "高血压能喝酒吗？,无\\n不建议饮酒。", "name": "内科"})[0].turns[0].content
    '高血压能喝酒吗？'
    """
    if isinstance(row.get("text"), str):
        asked, _, answer = row["text"].partition("\n")
        title, _, ask = asked.partition(",")
    elif not (_ASKED.isdisjoint(row) or _ANSWERED.isdisjoint(row)):
        title, ask, answer = first(row, *_TITLES), first(row, *_ASKS), first(row, *_ANSWERS)
    else:
        raise unknown_columns(row, "department, title, ask, answer; question, answer; or instruction, input, output")
    department = first(row, "department")
    if ask and (persona := _PERSONA.fullmatch(title)):
        department, title = department or persona[1], ""
    title, ask, answer = title.strip(), ask.strip(), answer.strip()
    said = _question("" if title in _NOTHING else title, "" if ask in _NOTHING else ask)
    if not said:
        raise RowError("no-question")
    if answer in _NOTHING or not answer:
        raise RowError("no-answer")
    if is_url(answer):
        raise RowError("answer-is-url", answer[:80])
    return (Dialogue(conversation((("user", said), ("assistant", answer))), department),)


def _question(title: str, ask: str) -> str:
    if title in ask:
        return ask
    return title if ask in title else f"{title}\n{ask}"


SOURCE = Source(
    name="toyhom",
    title="Chinese-medical-dialogue-data",
    homepage="https://github.com/Toyhom/Chinese-medical-dialogue-data",
    license="MIT",
    files={"**/*.csv": "train", "**/*.txt": "train", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    max_rejects=1.0,  # machine-reworded upstream, the greater part of it so much that it shows
    text="paragraphs",
    origin=Origin(
        (
            *github(
                "Toyhom/Chinese-medical-dialogue-data",
                "26724a4357fcd142f0cab81188cacf1a2dd8a827",
                "Data_数据/IM_内科/内科5000-33000.csv",
                sha256="9fd5a19caa5b37aa6f7a3fa4bf5e9ce97716f0407c94a41ade951627f2f4db20",
            ),
            *github(
                "Toyhom/Chinese-medical-dialogue-data",
                "26724a4357fcd142f0cab81188cacf1a2dd8a827",
                "Data_数据/Andriatria_男科/男科5-13000.csv",
                "Data_数据/OAGD_妇产科/妇产科6-28000.csv",
                "Data_数据/Oncology_肿瘤科/肿瘤科5-10000.csv",
                "Data_数据/Pediatric_儿科/儿科5-14000.csv",
                "Data_数据/Surgical_外科/外科5-14000.csv",
            ),
        ),
    ),
)
