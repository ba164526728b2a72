"""Chinese preference pairs of LLaMA-Factory's demonstrations: general subjects, against forgetting.

`dpo_zh_demo.json` has `conversations, chosen, rejected` with replies as turns; `oaast_rm_zh.json`, the Chinese part of
OpenAssistant, replies from best to worst under `instruction, input, output, history`.
"""

from collections.abc import Iterable

from chimed.records import Body
from chimed.sources.forms import reward
from chimed.sources.spec import Row, Source


def parse(row: Row) -> Iterable[Body]:
    """The pair of a row: of a ranking, its best and its worst reply.

    >>> row = {"instruction": "唐朝的都城？", "output": ["长安。", "大约是洛阳。", "不知道。"], "history": []}
    >>> parse(row)[0].rejected
    '不知道。'
    """
    return (reward(row),)


SOURCE = Source(
    name="dpo-zh-demo",
    title="LLaMA-Factory preference demonstrations",
    homepage="https://github.com/hiyouga/LLaMA-Factory",
    license="unknown",
    files={"**/*.json*": "train"},
    parse=parse,
    shapes=("preference",),
    stages=("dpo",),
)
