"""39health: 14,336 diseases of the encyclopedia 39.net as a table of QASystemOnMedicalGraph.

`name, alias, part, age, infection, insurance, department, checklist, symptom, complication, treatment, drug, period,
rate, money` in GB18030, with empty columns behind. A cell holds what a page showed: names parted by blanks, cut short
("...") and followed by links such as [详细]; what is cut is left out.
"""

import re
from collections.abc import Iterable, Iterator

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, github
from chimed.sources.relations import fact, is_appliance, treatments
from chimed.sources.spec import Row, Source, first

_COLUMNS = {
    "alias": "别名",
    "part": "发病部位",
    "age": "易感人群",
    "infection": "传染方式",
    "insurance": "医保",
    "department": "科室",
    "checklist": "检查",
    "symptom": "症状",
    "complication": "并发症",
    "treatment": "治疗方法",
    "drug": "推荐药物",
    "period": "治疗周期",
    "rate": "治愈率",
    "money": "治疗费用",
}
_ONE = {"易感人群", "传染方式", "医保", "治疗周期", "治愈率", "治疗费用"}  # one value, blanks and all
_COUNTED = {"治疗周期", "治愈率", "治疗费用"}  # without a number they say nothing
_PARTED = {"别名": r"[,，、;；]", "治疗方法": r"[\s、，]", "科室": r"[\s、]"}
_CUT = ("...", "…")
_NOTHING = {"", "无", "其他", "暂无", "不详", "暂无相关资料", ">>"}
_LINK = re.compile(r"\[详细\]|>>")
_UNCLOSED = re.compile(r"[(（][^()（）]*$")  # a remark that was cut within its brackets
_REMARK = re.compile(r"（请阅读.*?）")


def parse(row: Row) -> Iterable[Body]:
    """The facts of one disease.

    >>> row = {"name": "麦粒肿", "symptom": "眼睑红肿 眼痛 流... [详细]", "checklist": "暂无相关资料"}
    >>> [f.tail for f in parse(row)]
    ['眼睑红肿', '眼痛']
    """
    if not row.keys() >= {"name", "symptom", "checklist"}:
        raise unknown_columns(row, ", ".join(("name", *_COLUMNS)))
    head = first(row, "name")
    if not head:
        raise RowError("no-name")
    if head.endswith(_CUT):
        raise RowError("truncated", f"found the name {head!r}")
    facts = tuple(
        fact(head, relation, tail)
        for column, relation in _COLUMNS.items()
        for tail in dict.fromkeys(_tails(first(row, column), relation))
        if tail != head
    )
    if not facts:
        raise RowError("no-facts", f"{head} has nothing but its name")
    return facts


def _tails(cell: str, relation: str) -> Iterator[str]:
    text = _REMARK.sub("", _LINK.sub(" ", cell)).strip()
    for part in (text,) if relation in _ONE else re.split(_PARTED.get(relation, r"\s"), text):
        tail = (_UNCLOSED.sub("", part) if relation in _ONE else part).strip(" ,，、;；")
        if relation == "别名":
            tail = tail.removesuffix("等")
        vague = relation in _COUNTED and not any(c.isdecimal() for c in tail)
        # A letter alone is what is left of a name; only diseases can be called by one (疣, 痈).
        short = len(tail) < 2 and relation not in {"别名", "并发症", "发病部位"}
        appliance = relation == "推荐药物" and is_appliance(tail)
        if tail not in _NOTHING and not tail.endswith((*_CUT, "？")) and not (vague or short or appliance):
            yield from treatments(tail) if relation == "治疗方法" else (tail,)


SOURCE = Source(
    name="disease-kg",
    title="39health disease graph",
    homepage="https://github.com/zhihao-chen/QASystemOnMedicalGraph",
    license="unknown",
    files={"**/*.csv": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    origin=Origin(
        github("zhihao-chen/QASystemOnMedicalGraph", "4ab098f3c65577e15c579b97c088c1db99ebc6ae", "data/disease.csv"),
    ),
)
