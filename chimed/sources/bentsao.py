"""BenTsao (HuaTuo): instructions that ChatGPT wrote from a medical knowledge graph and from papers on liver cancer.

Wang et al. 2023, arXiv 2304.06975. `instruction, input, output`, as JSON lines under `.json` or as a list; those on
papers hold a whole conversation in the instruction: "<user>: … <bot>: … <user>: …". ChatGPT saw one entry or two
of the graph that the rows do not show: it calls them 知识.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import alpaca
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source, conversation, first, need

_SPEAKER = re.compile(r"<(user|bot)>\s*[:：]?")
_ROLES = {"user": "user", "bot": "assistant"}
_NUMBER = re.compile(r"^\s*\d{1,2}\s?[.、．/]\s*(?=\D)")  # of the instruction, where ChatGPT wrote a list of them
_UNSEEN = re.compile("^这两[个种]|^该疾病|^以上|两个知识")
_GIVEN = re.compile("^可?根据(?:上述|所述|已知|所提供的|提供的)?知识(?:库|点)?(?:所述|中[^，。]{2,24}?)?(?:可知)?，")


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns, and without words about an entry that is not shown.

    >>> asked = " <user>: 化疗疼吗？ <bot>: 一般不疼。 <user>: 那会恶心吗？"
    >>> [turn.content for turn in parse({"instruction": asked, "input": "", "output": "可能会。"})[0].turns]
    ['化疗疼吗？', '一般不疼。', '那会恶心吗？', '可能会。']
    """
    before, *said = _SPEAKER.split(first(row, "instruction"))
    if not said:
        asked = _NUMBER.sub("", before)
        if _UNSEEN.search(asked):
            raise RowError("lost-context", asked[:80])
        plain = {"instruction": asked, "output": _GIVEN.sub("", first(row, "output"))}
        return (alpaca({**row, **{name: text for name, text in plain.items() if name in row}}),)
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
    origin=Origin(
        (
            *github(
                "SCIR-HI/Huatuo-Llama-Med-Chinese",
                "bb4fc5e86ae39d466402f6d52e82030f587d5963",
                "data-literature/liver_cancer.json",
                sha256="4f63bccb513b12c965faf4ef14ac4c07afc9ac20b64f546476a5de89f3d5adf4",
            ),
            *github("SCIR-HI/Huatuo-Llama-Med-Chinese", "1ab34f707531e1262a4743d0d225b350e690760d", "data/infer.json"),
        ),
        where="The 8,658 instructions, data/llama_data.json, are linked from the README of "
        "https://github.com/SCIR-HI/Huatuo-Llama-Med-Chinese",
    ),
)
