"""39Health-KG: 210,000 edges between the diseases, symptoms and drugs of the encyclopedia 39.net.

QASystemOnMedicalGraph publishes it as a disease a row, which `chimed.sources.disease_kg` reads; here are the triples
`head, relation, tail` with the relations of its graph (ALIAS_IS, 别名是), and a disease an object, its values as lists.
"""

from collections.abc import Iterable

from chimed.records import Body
from chimed.sources import disease_kg
from chimed.sources.forms import triple
from chimed.sources.origins import Origin
from chimed.sources.spec import Row, Source

_RELATIONS = {
    **dict.fromkeys(("ALIAS_IS", "别名是"), "别名"),
    **dict.fromkeys(("HAS_SYMPTOM", "症状有"), "症状"),
    **dict.fromkeys(("PART_IS", "发病部位是"), "发病部位"),
    **dict.fromkeys(("DEPARTMENT_IS", "所属科室是", "所属科室"), "科室"),
    **dict.fromkeys(("HAS_COMPLICATION", "并发症有"), "并发症"),
    **dict.fromkeys(("HAS_DRUG", "可用药品"), "推荐药物"),
    **dict.fromkeys(("age", "发病人群"), "易感人群"),
    **dict.fromkeys(("insurance", "是否医保"), "医保"),
    **dict.fromkeys(("infection", "是否传染"), "传染方式"),
    **dict.fromkeys(("checklist", "检查项目"), "检查"),
    **dict.fromkeys(("treatment", "治疗方法"), "治疗方法"),
    **dict.fromkeys(("period", "治愈周期"), "治疗周期"),
    **dict.fromkeys(("rate", "治愈率"), "治愈率"),
    **dict.fromkeys(("money", "费用"), "治疗费用"),
}


def parse(row: Row) -> Iterable[Body]:
    """The fact of a triple, or all those of a disease.

    >>> parse({"head": "乙肝", "relation": "HAS_DRUG", "tail": "恩替卡韦分散片"})[0].relation
    '推荐药物'
    """
    if {"head", "relation"} & row.keys():
        return (triple(row, _RELATIONS),)
    cells = {name: "、" if name == "alias" else " " for name, value in row.items() if isinstance(value, list)}
    return disease_kg.parse({**row, **{name: between.join(map(str, row[name])) for name, between in cells.items()}})


SOURCE = Source(
    name="39health-kg",
    title="39Health-KG",
    homepage="https://github.com/zhihao-chen/QASystemOnMedicalGraph",
    license="unknown",
    files={"**/*.csv": "train", "**/*.json*": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    origin=Origin(
        where="Nobody publishes the triples themselves: QASystemOnMedicalGraph has the same graph as a table of "
        "diseases, which `chimed fetch disease-kg` gets; build triples of your own with its build_graph.py",
    ),
)
