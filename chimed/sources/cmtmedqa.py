"""CMtMedQA: 70,000 multi-turn consultations between patients and doctors (Zhongjing, arXiv 2308.03549).

One file holds two schemas: consultations `instruction, output, history, cate1, cate2` whose last exchange stands apart
from the history, and safety rows `instruct, output`.
"""

from collections.abc import Iterable
from dataclasses import replace

from chimed.records import Body
from chimed.sources.forms import alpaca
from chimed.sources.spec import Row, Source, first


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns.

    >>> parse({"instruction": "三天", "output": "请查血常规。", "history": [["发热", "多久了？"]]})[0].turns[1]
    Turn(role='assistant', content='多久了？')
    """
    return (replace(alpaca(row), department=first(row, "cate1", "cate2")),)


SOURCE = Source(
    name="cmtmedqa",
    title="CMtMedQA",
    homepage="https://github.com/SupritYoung/Zhongjing",
    license="Apache-2.0",
    files={"**/*test*": "test", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
)
