"""QASystemOnMedicalKG: diseases in the original one-object-a-line form of Xywy-KG, and acupoints with what they treat.

Diseases are `name, desc, cause, …`, in UTF-8 or GB18030; acupoints `name, diseases`.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources import xywy_kg
from chimed.sources.origins import Origin
from chimed.sources.relations import fact
from chimed.sources.spec import Row, Source, first

_PARTED = re.compile(r"[、，；,;]")
_REMARK = re.compile(r"[（(][^（()）]*[)）]|[\s\]]")


def parse(row: Row) -> Iterable[Body]:
    """The facts of a disease or of an acupoint.

    >>> facts = parse({"name": "内关", "diseases": ["（灸）主治心悸", "胃 痛、呕吐", ""]})
    >>> [(f.head, f.tail) for f in facts]
    [('内关穴', '心悸'), ('内关穴', '胃痛'), ('内关穴', '呕吐')]
    """
    if not isinstance(row.get("diseases"), list):
        return xywy_kg.parse(row)
    head = first(row, "name")
    if not head:
        raise RowError("no-name")
    parts = (part for text in row["diseases"] for part in _PARTED.split(_REMARK.sub("", str(text or ""))))
    tails = dict.fromkeys(part.strip("）)。").removeprefix("主治") for part in parts)
    point = f"{head.removesuffix('穴')}穴"  # 大都 and 水分 alone are words of every day
    facts = tuple(fact(point, "主治", tail, "穴位") for tail in tails if len(tail) > 1)
    if not facts:
        raise RowError("no-facts", f"{head} treats nothing")
    return facts


SOURCE = Source(
    name="qasystem-medicalkg",
    title="QASystemOnMedicalKG",
    homepage="https://github.com/liuhuanyong/QASystemOnMedicalKG",
    license="unknown",
    files={"**/*.json*": "train"},
    parse=parse,
    shapes=("fact",),
    stages=("cpt", "sft", "dpo", "rag"),
    origin=Origin(
        where="The whole graph is what `chimed fetch xywy-kg` gets; here belong other files in its form, such as those "
        "of repositories derived from https://github.com/liuhuanyong/QASystemOnMedicalKG",
    ),
)
