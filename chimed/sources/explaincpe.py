"""ExplainCPE: about 7,000 items of the Chinese pharmacist examination, each with an explanation.

Li et al. 2023, "ExplainCPE: A Free-text Explanation Benchmark of Chinese Pharmacist Examination" (Findings of EMNLP).
"""

import re
from collections.abc import Iterable

from chimed.records import Body
from chimed.sources.spec import Row, Source, exam, first

_WRAP = re.compile(r"(?<=[\u4e00-\u9fff，。；：、]) (?=[\u4e00-\u9fff])")
_ITEM = exam(question="question", options="options", answer="answer", explanation="explanation")


def parse(row: Row) -> Iterable[Body]:
    """An item, its running text without the blanks that the line ends of a scanned page left inside words.

    >>> row = {"question": "首选", "options": ["甲", "乙"], "answer": "A", "explanation": "短效避孕药有 很大不同。"}
    >>> parse(row)[0].explanation
    '短效避孕药有很大不同。'
    """
    return _ITEM(
        {**row, **{name: _WRAP.sub("", first(row, name)) for name in ("question", "explanation") if name in row}}
    )


SOURCE = Source(
    name="explaincpe",
    title="ExplainCPE",
    homepage="https://github.com/HITsz-TMG/ExplainCPE",
    license="unknown",
    files={"**/train.json": "train", "**/dev.json": "validation", "**/test.json": "test"},
    parse=parse,
    shapes=("exam",),
    stages=("cpt", "sft", "dpo"),
)
