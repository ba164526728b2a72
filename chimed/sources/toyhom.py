"""Chinese-medical-dialogue-data: 790,000 question-answer pairs of six departments.

GB18030 tables `department,title,ask,answer`, and a text form: blocks of "title,ask" and the answer, parted by blank
lines. 无 stands for an empty question.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.spec import Row, Source, conversation, first

_NOTHING = {"无", "無", "没有", "暂无", "-", "."}


def parse(row: Row) -> Iterable[Body]:
    """The pair of a row; a title that the question repeats is not said twice.

    >>> parse({"text": "高血压能喝酒吗？,无\\n不建议饮酒。", "name": "内科"})[0].turns[0].content
    '高血压能喝酒吗？'
    """
    if "answer" in row and "ask" in row:
        title, ask, answer = first(row, "title"), first(row, "ask"), first(row, "answer")
        department = first(row, "department")
    elif isinstance(row.get("text"), str):
        asked, _, answer = row["text"].partition("\n")
        title, _, ask = asked.partition(",")
        department = ""
    else:
        raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected department, title, ask, answer")
    said = _question("" if title.strip() in _NOTHING else title.strip(), "" if ask.strip() in _NOTHING else ask.strip())
    if not said:
        raise RowError("no-question")
    if answer.strip() in _NOTHING or not answer.strip():
        raise RowError("no-answer")
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
    files={"**/*.csv": "train", "**/*.txt": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    text="paragraphs",
)
