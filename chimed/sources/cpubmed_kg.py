"""CPubMed-KG: 4.4 million triples that Harbin Institute of Technology (Shenzhen) took from Chinese medical journals.

A triple a line, head, relation and tail parted by tabs, entities with their type behind @@; the same as a table
`head_entity, head_type, relation, tail_entity, tail_type`, and as `{"triples": [{head, relation, tail, triple_id}]}`.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.forms import edge, triple
from chimed.sources.origins import Origin
from chimed.sources.spec import Many, Row, Source

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


def triples(text: bytes, name: str) -> Many | None:
    """The facts of whole lines at once, but for those with anything to mend or refuse; None where it may be a lot.

    >>> lines = "百日咳@@疾病\\t就诊科室\\t儿科@@其他\\n百日咳@@疾病\\t预防\\t \\n"
    >>> found = triples(lines.encode(), "CPubMed-KGv2_0")
    >>> [column.to_pylist() for column in found.columns], found.alone[1]["text"]
    ([['百日咳'], ['科室'], ['儿科'], ['疾病'], ['科室']], '百日咳@@疾病\\t预防\\t ')
    """
    if b"\0" in text or b"\r" in text:
        return None
    try:
        lines = pc.split_pattern(pa.array([text.removesuffix(b"\n")], pa.binary()).cast(pa.string()), "\n").flatten()
    except pa.ArrowInvalid:
        return None
    plain = pc.match_substring_regex(lines, _PLAIN)
    cells = pc.split_pattern(pc.replace_substring(lines.filter(plain), "@@", "\t"), "\t").flatten()
    rows = len(cells) // 5
    head, head_type, relation, tail, tail_type = (cells.take(pa.array(np.arange(rows) * 5 + k)) for k in range(5))
    # What becomes of a fact hangs on its relation and the type of its head: few pairs.
    pairs = pc.binary_join_element_wise(relation, head_type, "\t").dictionary_encode()
    made = [_made(*pair.split("\t")) for pair in pairs.dictionary.to_pylist()]
    relation, head_type, own = (pa.array([one[k] for one in made], pa.string()).take(pairs.indices) for k in range(3))
    sound = pc.and_(pc.is_valid(relation), pc.not_equal(head, tail))
    columns = tuple(column.filter(sound) for column in (head, relation, tail, head_type, pc.coalesce(own, tail_type)))
    apart = ~_numpy(plain)
    apart[~apart] = ~_numpy(sound)
    alone = {place: {"text": lines[place].as_py(), "name": name} for place in np.flatnonzero(apart).tolist()}
    if not all(row["text"].strip() for row in alone.values()):
        return None  # blank lines are no rows
    return Many(len(lines), "fact", columns, alone)


_END = r"[^\t@\s\p{Z}\x1c-\x1f\x{85}]"  # what str.strip takes off, besides
_CELL = rf"{_END}(?:[^\t@]*{_END})?"
_PLAIN = rf"^{_CELL}@@{_CELL}\t{_CELL}\t{_CELL}@@{_CELL}$"


def _numpy(mask: pa.Array) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = mask.to_numpy(zero_copy_only=False).copy()
    return found


def _made(relation: str, head_type: str) -> tuple[str | None, str | None, str | None]:
    """The relation and types of a fact: None for the type of the tail where upstream's stays, and for all three where
    what the tail says may have to be mended.
    """
    fact = edge(("头", head_type), relation, ("尾", "?"), _RELATIONS)
    if fact.tail_type == "text" or fact.relation == "治疗方法":
        return None, None, None
    return fact.relation, fact.head_type, None if fact.tail_type == "?" else fact.tail_type


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
    at_once=triples,
    origin=Origin(
        where="Download CPubMed-KG by hand from https://cpubmed.openi.org.cn/graph/wiki, which asks to "
        "accept its terms",
    ),
)
