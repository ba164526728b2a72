"""CPubMed-KG: 4.4 million triples that Harbin Institute of Technology (Shenzhen) took from Chinese medical journals.

A triple a line, head, relation and tail parted by tabs, entities with their type behind @@; the same as a table
`head_entity, head_type, relation, tail_entity, tail_type`, and as `{"triples": [{head, relation, tail, triple_id}]}`.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.forms import edge, triple
from chimed.sources.origins import Origin
from chimed.sources.spec import Row, Source

# The 44 relations of upstream that mean what one of ours does; the others, such as 影像学检查 and 手术治疗, say more.
_RELATIONS = {
    "临床表现": "症状",
    "就诊科室": "科室",
    "药物治疗": "常用药物",
    "辅助检查": "检查",
    "病因": "致病因素",
    "传播途径": "传染方式",
    "多发群体": "易感人群",
    "发病率": "患病比例",
    "预防": "预防措施",
    "同义词": "别名",
}
_EXPECTED = "HEAD@@TYPE, RELATION and TAIL@@TYPE parted by tabs"


def parse(row: Row) -> Iterable[Body]:
    """The fact of a line, or all those of a row that lists them.

    >>> parse({"text": "百日咳@@疾病\\t就诊科室\\t儿科@@其他", "name": "CPubMed-KGv2_0"})[0].tail_type
    '科室'
    """
    if isinstance(row.get("triples"), list):
        if any(not isinstance(one, dict) for one in row["triples"]):
            raise RowError("not-a-triple", "found something else than objects under triples")
        return tuple(triple(one, _RELATIONS) for one in row["triples"])
    if not isinstance(row.get("text"), str):
        return (triple(row, _RELATIONS),)
    cells = row["text"].split("\t")
    if len(cells) != 3:
        raise RowError("not-a-triple", f"found {row['text'][:60]!r}; expected {_EXPECTED}")
    head, relation, tail = map(str.strip, cells)
    if not (head and relation and tail):
        return (triple({"head": head, "relation": relation, "tail": tail}, _RELATIONS),)  # says which is missing
    return (edge((head, ""), relation, (tail, ""), _RELATIONS),)


SOURCE = Source(
    name="cpubmed-kg",
    title="CPubMed-KG",
    homepage="https://cpubmed.openi.org.cn/graph/wiki",
    license="CC-BY-ND-4.0",
    files={"**/*.txt": "train", "**/*.json*": "train", "**/*.csv": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    text="lines",
    origin=Origin(
        where="Download CPubMed-KG by hand from https://cpubmed.openi.org.cn/graph/wiki, which asks to "
        "accept its terms",
    ),
)
