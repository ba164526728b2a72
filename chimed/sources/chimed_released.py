"""ChiMed as its authors released it: three files that hold what `chimed build` makes anew, without its provenance.

Ye et al. 2023, arXiv 2310.09089. `cpt.txt` has a record a line, `sft.jsonl` conversations between `input` and `output`,
`dpo.json` pairs `question, response_chosen, response_rejected`. Evaluation items stand in it; a build removes them as
leaked, as it removes what other sources have too.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Passage
from chimed.sources.forms import reward, sharegpt, unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.spec import Row, Source

# Consultations end with who the doctor and the patient are: names, hospitals, addresses of pages.
_PEOPLE = re.compile(r"。?(?:医生信息|患者信息)[:：]\{[^{}]*\}")


def parse(row: Row) -> Iterable[Body]:
    """The passage, conversation or preference pair of a row.

    >>> line = "标题:失眠。问诊建议:{'处置建议': '规律作息'}。医生信息:{'name': '甲'}。患者信息:{'patient': '乙'}"
    >>> parse({"text": line, "name": "cpt"})[0].text
    "标题:失眠。问诊建议:{'处置建议': '规律作息'}"
    """
    if isinstance(row.get("text"), str):
        text = _PEOPLE.sub("", row["text"]).strip()
        if not text:
            raise RowError("no-text")
        return (Passage(text),)
    if {"response_chosen", "response_rejected"} & row.keys():
        return reward(row)
    if "conversations" in row:
        return (sharegpt(row),)
    raise unknown_columns(row, "plain text; conversations; or question, response_chosen, response_rejected")


SOURCE = Source(
    name="chimed-released",
    title="ChiMed as released",
    homepage="https://huggingface.co/datasets/williamliu/ChiMed",
    license="unknown",
    files={"**/cpt*.txt": "train", "**/sft*.json*": "train", "**/dpo*.json*": "train"},
    parse=parse,
    shapes=("passage", "dialogue", "preference"),
    stages=("cpt", "sft", "dpo"),
    text="lines",
    origin=Origin(
        hub("williamliu/ChiMed", "20f291da49b68fe6579fa3383ac3634f7b74d11f", "cpt.txt", "sft.jsonl", "dpo.json"),
    ),
)
