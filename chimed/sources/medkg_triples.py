"""Triples of diseases by relation: 329,000 lines such as 疾病 小儿肥胖 传染方式 传染方式 无传染性.

A line is head type, head, relation, tail type and tail, parted by single blanks; heads and tails may hold blanks
themselves, so the line is cut at its relation word and the tail type that belongs to it.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.origins import Origin
from chimed.sources.relations import fact, treatments
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
# Headings that upstream took for values, and places that are none.
_HEADINGS = {"专业指导", "健康教育", "日常预防", "一般预防", "预防措施", "预防", "一级预防", "二级预防", "三级预防"}
_HEADINGS |= {"治疗方法", "治疗", "一般治疗", "发病原因", "发病机制", "病因", "其他", "其他骨", "人体部位"}
# Heads that are called diseases but are people, wards or procedures, or say what a drug does.
_NO_DISEASE = re.compile(
    r".*((?<!癫)者|病人|人群|老年人|门诊|手术|[除样植形架建离合换吻]术|造瘘术|复苏术|栓塞术|缝合术|治疗|疗法|化疗|放疗|麻醉|安宁疗护)"
    r"|体位|供肝|.*(可能引起|可通过|反应为|仍残留).*"
)
# Short forms that may stand for several things (AP, MS, FI); what everybody knows stays.
_SHORT = re.compile(
    r"(?!(?:AIDS|HIV|HIV/AIDS|SARS|COVID-19|COPD|ARDS|DIC|HBV|HCV|T[12]DM|H\dN\d)$)[A-Za-z][A-Za-z0-9/\-]{0,6}"
)
_THOUSANDS = re.compile(r"(?<![\dA-Za-z.])(\d{1,3}) (\d{3})(?=\D|$)")  # 1 064 nm


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
    if tail.removeprefix(head) in _HEADINGS or tail.endswith(("：", ":")) or not any(c.isalpha() for c in tail):
        raise RowError("no-tail", f"found {tail!r}")
    if _NO_DISEASE.fullmatch(head):
        raise RowError("no-disease", f"found {head!r}")
    if _SHORT.fullmatch(head):
        raise RowError("abbreviation", f"found {head!r}, which may stand for several things")
    tail = _THOUSANDS.sub(r"\1\2", tail)
    relation = _UPSTREAM[relation][1]
    return tuple(fact(head, relation, name) for name in (treatments(tail) if relation == "治疗方法" else [tail]))


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
    origin=Origin(
        where="These triples circulate without an address of their own, as a folder `relation` with a text file for "
        "each relation: put that folder there if you have it",
    ),
)
