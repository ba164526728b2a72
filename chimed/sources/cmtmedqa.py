"""CMtMedQA: 70,000 multi-turn consultations between patients and doctors (Zhongjing, arXiv 2308.03549).

One file holds two schemas: consultations `instruction, output, history, cate1, cate2` whose last exchange stands apart
from the history, and safety rows `instruct, output`.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.spec import Row, Source, conversation, first, need


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns.

    >>> parse({"instruction": "三天", "output": "请查血常规。", "history": [["发热", "多久了？"]]})[0].turns[1]
    Turn(role='assistant', content='多久了？')
    """
    if not ({"instruction", "instruct"} & row.keys()):
        raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected instruction, output, history")
    asked = need(row, "instruction", "instruct")
    more = first(row, "input")
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise RowError("history-not-pairs", f"found {str(pairs)[:60]}")
    turns = [(role, str(text or "")) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    turns += [("user", f"{asked}\n{more}" if more else asked), ("assistant", need(row, "output"))]
    return (Dialogue(conversation(turns), first(row, "cate1", "cate2")),)


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
