"""ExplainCPE: about 7,000 items of the Chinese pharmacist examination, each with an explanation.

Li et al. 2023, "ExplainCPE: A Free-text Explanation Benchmark of Chinese Pharmacist Examination" (Findings of EMNLP).
Items with several right options were cut down to one letter upstream, not always that of a right one.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source, exam, first

_WRAP = re.compile(r"(?<=[\u4e00-\u9fff，。；：、]) (?=[\u4e00-\u9fff])")
_NUMBER = re.compile(r"^\s*\d{1,3}\s*[.,，．、](?=\D)|(?<=。)\d{1,2}\.\s*(?=[\u4e00-\u9fff])")  # of the item, in a stem
_POINT = re.compile(r"(?<![\d.])\d{1,2}\s*[.．、](?!\d)")  # a numbered point of an explanation
_LEFT = re.compile(r"(?<=。)[；;：:]+\s*$|^[；;]+$")
# What asks for several: 属于抗酸药的有, …的注意事项包括; but not 错误的有, 不包括.
_SEVERAL = re.compile(
    r"(?:(?:的|因素|药物?|方法|类别|制?剂|措施|特点|反应|作用|途径|疾病|症状|情况|原因|内容|类型|基质|成分|说法|描述|叙述|机制|人群|食物|指标)有"
    r"|包括|包含|有(?:哪些|哪几种))[（(）)：:。？?\s]*$"
)
_ODD_ONE = re.compile(r"(?:不|错误|有误|除外|除了|禁|非|无关|没有|无法|少见)[^，。]{0,12}$")
_ITEM = exam(question="question", options="options", answer="answer", explanation="explanation")


def parse(row: Row) -> Iterable[Body]:
    """An item, its running text without the numbers of a question bank, and without the blanks that the line ends of a
    scanned page left inside words.

    >>> row = {"question": "首选", "options": ["甲", "乙"], "answer": "A", "explanation": "短效避孕药有 很大不同。"}
    >>> parse(row)[0].explanation
    '短效避孕药有很大不同。'
    """
    stem = _NUMBER.sub("", _WRAP.sub("", first(row, "question")))
    if _SEVERAL.search(stem) and not _ODD_ONE.search(stem):
        raise RowError("one-of-several", f"found the key {first(row, 'answer')}", held=stem)
    told = _WRAP.sub("", first(row, "explanation"))
    if len(_POINT.findall(told)) == 1:
        told = told[found.end() :] if (found := _POINT.match(told)) else told
    told = re.sub(r"[；;，,]\s*$", "。", _LEFT.sub("", told))
    return _ITEM({**row, "question": stem, "explanation": told})


SOURCE = Source(
    name="explaincpe",
    title="ExplainCPE",
    homepage="https://github.com/HITsz-TMG/ExplainCPE",
    license="unknown",
    files={"**/train.json": "train", "**/dev.json": "validation", "**/test.json": "test"},
    parse=parse,
    shapes=("exam",),
    stages=("cpt", "sft", "dpo"),
    origin=Origin(
        (
            *github(
                "HITsz-TMG/ExplainCPE",
                "44337670d7f1dd0f7c2b76c82ca6dfffd1405759",
                "dataset/dev.json",
                sha256="dac6969a86f41e8eaed9d41814d34912a1594efa8679ba314b905c106d5963d8",
            ),
            *github(
                "HITsz-TMG/ExplainCPE",
                "44337670d7f1dd0f7c2b76c82ca6dfffd1405759",
                "dataset/test.json",
                sha256="956bfe8504c454b8b56321a3582d36324ee74093a515b92c9582b49117d375a6",
            ),
        ),
        where="The training items, train.json, lie in the folder dataset of https://github.com/HITsz-TMG/ExplainCPE",
    ),
)
