"""CMtMedQA: 70,000 multi-turn consultations between patients and doctors (Zhongjing, arXiv 2308.03549).

One file holds two schemas: consultations `instruction, output, history, cate1, cate2` whose last exchange stands apart
from the history, and safety rows `instruct, output`.
"""

import re
from collections.abc import Iterable

from chimed.records import Body, Dialogue, Turn
from chimed.sources.forms import alpaca
from chimed.sources.origins import Origin, github, hub
from chimed.sources.spec import Row, Source, first

# What the model that wrote the rows said about itself and about its task.
_MODEL = re.compile(
    r"我是(?:你的|您的)?仲景(?:智能)?(?:医学|医疗)?助手[，。！,]?\s*|在这个多轮对话中的第[一二三四五]轮，"
    r"|\s*(?:\.{3}\s*)?通过(?:以上对话|对原始对话)[\s\S]*$"
)


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns, without what the model that wrote them says about itself.

    >>> parse({"instruction": "三天", "output": "请查血常规。", "history": [["发热", "多久了？"]]})[0].turns[1]
    Turn(role='assistant', content='多久了？')
    """
    said = alpaca(row)
    turns = tuple(Turn(turn.role, _MODEL.sub("", turn.content).strip() or turn.content) for turn in said.turns)
    return (Dialogue(turns, first(row, "cate1", "cate2")),)


SOURCE = Source(
    name="cmtmedqa",
    title="CMtMedQA",
    homepage="https://github.com/SupritYoung/Zhongjing",
    license="Apache-2.0",
    files={"**/*test*": "test", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    origin=Origin(
        (
            *hub("Suprit/CMtMedQA", "20ad72ce62bfa4ffb7a6f79740b6e42405fd195d", "CMtMedQA.json"),
            *github(
                "SupritYoung/Zhongjing",
                "478000e10d6c9633065773b4712fabd13d2fcfbe",
                "data/CMtMedQA_test.json",
                sha256="089924f89c5e533e5fecd47124762945f4e602255da2a99212f1d0a4a21b22c3",
            ),
        ),
    ),
)
