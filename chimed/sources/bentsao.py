"""BenTsao (HuaTuo): instructions that ChatGPT wrote from a medical knowledge graph and from papers on liver cancer.

Wang et al. 2023, arXiv 2304.06975. `instruction, input, output`, as JSON lines under `.json` or as a list; those on
papers hold a whole conversation in the instruction: "<user>: … <bot>: … <user>: …".
"""

import re
from collections.abc import Iterable

from chimed.records import Body, Dialogue
from chimed.sources.forms import alpaca
from chimed.sources.spec import Row, Source, conversation, first, need

_SPEAKER = re.compile(r"<(user|bot)>\s*[:：]?")
_ROLES = {"user": "user", "bot": "assistant"}


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns.

    >>> asked = " <user>: 化疗疼吗？ <bot>: 一般不疼。 <user>: 那会恶心吗？"
    >>> [turn.content for turn in parse({"instruction": asked, "input": "", "output": "可能会。"})[0].turns]
    ['化疗疼吗？', '一般不疼。', '那会恶心吗？', '可能会。']
    """
    before, *said = _SPEAKER.split(first(row, "instruction"))
    if not said:
        return (alpaca(row),)
    turns = [("user", before), *((_ROLES[who], text) for who, text in zip(said[::2], said[1::2], strict=True))]
    return (Dialogue(conversation([*turns, ("user", first(row, "input")), ("assistant", need(row, "output"))])),)


SOURCE = Source(
    name="bentsao",
    title="BenTsao",
    homepage="https://github.com/SCIR-HI/Huatuo-Llama-Med-Chinese",
    license="Apache-2.0",
    files={"**/*infer*": "test", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
)
