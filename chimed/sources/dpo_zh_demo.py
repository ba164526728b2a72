"""Chinese preference pairs of LLaMA-Factory's demonstrations: general subjects, against forgetting.

`dpo_zh_demo.json` has `conversations, chosen, rejected` with replies as turns; `oaast_rm_zh.json`, the Chinese part of
OpenAssistant, replies from best to worst under `instruction, input, output, history`.
"""

from collections.abc import Iterable

from chimed.records import Body
from chimed.sources.forms import reward
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source


def parse(row: Row) -> Iterable[Body]:
    """The pairs of a row: of a ranking, one for each two neighbours.

    >>> row = {"instruction": "唐朝的都城？", "output": ["长安。", "大约是洛阳。", "不知道。"], "history": []}
    >>> [pair.rejected for pair in parse(row)]
    ['大约是洛阳。', '不知道。']
    """
    return reward(row)


SOURCE = Source(
    name="dpo-zh-demo",
    title="LLaMA-Factory preference demonstrations",
    homepage="https://github.com/hiyouga/LLaMA-Factory",
    license="unknown",
    files={"**/*.json*": "train"},
    parse=parse,
    shapes=("preference",),
    stages=("dpo",),
    origin=Origin(
        (
            *github("hiyouga/LLaMA-Factory", "3a0f5b4fe72a5e02040081c47274f3ad67d5e668", "data/dpo_zh_demo.json"),
            *github(
                "hiyouga/LLaMA-Factory",
                "569ed592b61da573326cd405f932a2cb6fff9b30",
                "data/oaast_rm_zh.json",
                sha256="02c940343367d90c2d1ec6df4992466aee429eadcf103af61e10da7f3261f9e6",
            ),
        ),
    ),
)
