"""Triples of diseases by relation: 329,000 lines such as 疾病 小儿肥胖 传染方式 传染方式 无传染性.

A line is head type, head, relation, tail type and tail, parted by single blanks; heads and tails may hold blanks
themselves, so the line is cut at its relation word and the tail type that belongs to it.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.relations import fact
from chimed.sources.spec import Row, Source

# upstream's relation -> (its tail types, our relation)
_UPSTREAM = {
    "传染方式": ("传染方式", "传染方式"),
    "医保": ("医保状态", "医保"),
    "发病部位": ("发病部位", "发病部位"),
    "并发症": ("疾病|并发症", "并发症"),
    "忌讳食物": ("食物", "忌吃"),
    "推荐食物": ("食物", "宜吃"),
    "易感人群": ("易感人群", "易感人群"),
    "检查项目": ("检查项目", "检查"),
    "治疗方法": ("治疗方法", "治疗方法"),
    "生病原因": ("生病原因", "致病因素"),
    "症状": ("疾病症状", "症状"),
    "科室": ("科室", "科室"),
    "预防措施": ("预防措施", "预防措施"),
}
_LINE = re.compile(
    r"\ufeff?疾病 (?P<head>.+?) (?:"
    + "|".join(f"(?P<{relation}>{relation}) (?:{types})" for relation, (types, _) in _UPSTREAM.items())
    + ") (?P<tail>.+)"
)
# Headings that upstream took for values.
_HEADINGS = {"专业指导", "日常预防", "一般预防", "预防措施", "治疗方法", "发病原因", "病因", "一般治疗"}


def parse(row: Row) -> Iterable[Body]:
    """The fact on a line.

    >>> parse({"text": "疾病 乳溢症 检查项目 检查项目 乳腺肿瘤标记（CA 15-3）", "name": "检查项目"})[0].tail
    '乳腺肿瘤标记（CA 15-3）'
    """
    line = row.get("text")
    if not isinstance(line, str):
        raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected plain text")
    found = _LINE.fullmatch(line.strip())
    if not found:
        raise RowError("not-a-triple", f"found {line[:60]!r}; expected 疾病 HEAD RELATION TYPE TAIL")
    head, tail = found["head"].strip(), found["tail"].strip()
    relation = next(name for name in _UPSTREAM if found[name])
    if tail.endswith(("...", "…")):
        raise RowError("truncated", f"found {tail!r}")
    if tail in _HEADINGS or tail.endswith(("：", ":")) or not any(c.isalpha() for c in tail):
        raise RowError("no-tail", f"found {tail!r}")
    return (fact(head, _UPSTREAM[relation][1], tail),)


SOURCE = Source(
    name="medkg-triples",
    title="Medical knowledge graph triples",
    homepage="",
    license="MIT",
    files={"**/*.txt": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    text="lines",
)
