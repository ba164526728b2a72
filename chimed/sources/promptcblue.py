"""PromptCBLUE: the tasks of the CBLUE benchmark as instructions: entities, relations, intents, matching, reports.

Zhu et al. 2023, arXiv 2310.14151. JSON lines `input, target, answer_choices, task_type, task_dataset, sample_id`, a
task a file; carriage returns are the only line ends of some. The targets of the test split are empty.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin
from chimed.sources.spec import Row, Source, conversation, first, need


def parse(row: Row) -> Iterable[Body]:
    """The instruction and its result.

    >>> row = {"input": "判断意图：感冒多久好\\n选项：病情诊断，治疗周期\\n答：", "target": "治疗周期"}
    >>> parse(row)[0].turns[1].content
    '治疗周期'
    """
    if not row.keys() >= {"input", "target"}:
        raise unknown_columns(row, "input, target, answer_choices, task_type, task_dataset, sample_id")
    asked, answer = need(row, "input"), first(row, "target")
    if not answer:
        raise RowError("no-answer", asked[:80])
    return (Dialogue(conversation((("user", asked), ("assistant", answer)))),)


SOURCE = Source(
    name="promptcblue",
    title="PromptCBLUE",
    homepage="https://github.com/michael-wzhu/PromptCBLUE",
    license="academic research",
    files={"**/*test*": "test", "**/*dev*": "validation", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(
        where="Sign up at Tianchi (https://tianchi.aliyun.com/competition/entrance/532084) and download the task files "
        "by hand: https://github.com/michael-wzhu/PromptCBLUE has only toy examples",
    ),
)
