"""Knowledge graphs of traditional Chinese medicine: 266 prescriptions in 742 variants, and 131 herbs.

A list of edges `node_1, relation, node_2`, a node "type<TAB>name". Variants of a prescription are numbered (鳖甲汤_2)
and stay apart, because each has its own herbs; since only upstream counts so, they are of a type of their own, which
is told of but never asked about. The dose of a herb is an edge of the herb, not of the prescription it
belongs to, and says nothing by itself; edges that only sort nodes or number variants are no facts either.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, github
from chimed.sources.relations import VARIANT, fact
from chimed.sources.spec import Row, Source

# (upstream's relation, type of its head) -> (our relation, type of the head)
_UPSTREAM = {
    ("composition", "处方"): ("组成", "方剂"),
    ("functions", "处方"): ("功能主治", "方剂"),
    ("from", "方名"): ("出处", "方剂"),
    ("another name", "方名"): ("别名", "方剂"),
    ("attending", "中药名"): ("主治", "中药"),
    ("functions", "中药名"): ("功效", "中药"),
    ("distribution area", "中药名"): ("产地", "中药"),
    ("another name", "中药名"): ("别名", "中药"),
    ("from", "中药名"): ("出处", "中药"),
    ("five flavors", "中药名"): ("药味", "中药"),
    ("four properties", "中药名"): ("药性", "中药"),
    ("channel tropism", "中药名"): ("归经", "中药"),
}
_NO_FACT = {"include", "prescription type"}
_VARIANT = re.compile(r"_(\d+)$")
_AMOUNT = re.compile(r".*\d+ *(?:两|钱|克|g|分|～).*")
# What stands at a herb in a recipe and is no part of its name.
_RECIPE = re.compile(r"^[加用]|(各?等[分份]|减半|少许|适量|各?半|不[拘以计]多少|全个|如手大|者|[长广]?\d.*)$")
# What recipes say that is no herb, and what herbs are said to be that is no use of them.
_NO_TAIL = {
    "组成": re.compile(r".*[研备除淹裹拌煨锉焙闰].*|.+味用.+|不.*|切碎|煎膏"),
    "功效": re.compile(r"[肉根叶茎花果皮]|全草|外用|内服"),
}


def parse(row: Row) -> Iterable[Body]:
    """The fact of an edge.

    >>> parse({"node_1": "处方\\t止嗽散_2", "relation": "composition", "node_2": "中药名\\t桔梗"})[0].head
    '止嗽散（方2）'
    """
    if not row.keys() >= {"node_1", "relation", "node_2"}:
        raise unknown_columns(row, "node_1, relation, node_2")
    kind, _, head = str(row["node_1"]).partition("\t")
    _, _, tail = str(row["node_2"]).partition("\t")
    upstream, head, tail = str(row["relation"]), head.strip(), tail.strip()
    if upstream in _NO_FACT:
        raise RowError("no-fact", f"{upstream} sorts nodes and says nothing of them")
    if upstream == "dose":
        raise RowError("dose-without-prescription", f"found {head} {tail}, which is so in one prescription only")
    if (upstream, kind) not in _UPSTREAM:
        raise RowError("unknown-relation", f"found {kind} {upstream}")
    if not head or not tail:
        raise RowError("no-tail" if head else "no-name", f"found {row['node_1']!r}, {row['node_2']!r}")
    if any(lost in head + tail for lost in "?<\ufffd"):
        raise RowError("lost-character", f"found {head} {upstream} {tail}")
    relation, head_type = _UPSTREAM[upstream, kind]
    if relation == "组成":
        tail = _RECIPE.sub("", tail) if len(tail) > 2 else tail
    if relation == "功效" and tail.startswith("主治"):
        relation = "主治"
    if relation == "组成" and tail in set("虫皮子庵足"):  # what is left of a name
        raise RowError("lost-character", f"found {head} {upstream} {tail}")
    if not tail or (relation in _NO_TAIL and _NO_TAIL[relation].fullmatch(tail)):
        raise RowError("no-tail", f"found {head} {upstream} {tail!r}")
    if relation.endswith("主治"):
        tail = tail.removeprefix("主治").removeprefix("主") if len(tail) > 2 else tail
        if _AMOUNT.fullmatch(tail):
            raise RowError("no-tail", f"found the amount {tail}")
    if relation == "出处":
        tail = f"《{tail.strip('《》')}》"
    variant = _VARIANT.search(head)
    return (fact(_VARIANT.sub(r"（方\1）", head), relation, tail, VARIANT if variant else head_type),)


SOURCE = Source(
    name="tcm-kg",
    title="Knowledge graphs of traditional Chinese medicine",
    homepage="https://github.com/fengxi177/Knowlegde_Graph_TCM",
    license="unknown",
    files={"**/relations*.json": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    max_rejects=0.5,  # doses and edges that only sort nodes
    origin=Origin(
        (
            *github(
                "fengxi177/Knowlegde_Graph_TCM",
                "725ae781436450288316b28321b5c515cbaa43f3",
                "fangji/data_fangji/relations_fangji.json",
                sha256="664d7197518d03ef6a8af299f1666925bf63f257f92665762a059bf918b36116",
            ),
            *github(
                "fengxi177/Knowlegde_Graph_TCM",
                "d6e92567d4112d2a01290801580c684c41c2a965",
                "zhongyao/data_zhongyao/relations_zhongyao.json",
            ),
        ),
    ),
)
