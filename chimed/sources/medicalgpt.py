"""MedicalGPT: pre-training text, instructions, and preference pairs in the forms of its training scripts.

Told apart by columns: `text` (pre-training), `instruction, input, output`, `conversations` (fine-tuning), `question,
response_chosen, response_rejected` (reward), and `conversations, chosen, rejected` (direct preference optimisation).
A plain-text file is a textbook.
"""

from collections.abc import Iterable

from chimed.records import Body, Passage
from chimed.sources.forms import alpaca, reward, sharegpt, unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.sections import sections
from chimed.sources.spec import Row, Source, first, need


def parse(row: Row) -> Iterable[Body]:
    """The passages, dialogue or preference pair of a row.

    >>> row = {"question": "头痛怎么办？", "response_chosen": "先休息，量血压。", "response_rejected": "不知道。"}
    >>> parse(row)[0].rejected
    '不知道。'
    """
    if "text" in row:
        return _passages(row)
    if {"response_chosen", "chosen"} & row.keys():
        return reward(row)
    if "conversations" in row:
        return (sharegpt(row),)
    if "instruction" in row:
        return (alpaca(row),)
    raise unknown_columns(row, "text, conversations or question")


def _passages(row: Row) -> Iterable[Body]:
    text = need(row, "text")
    if "name" not in row:  # a row of pre-training text, not a file
        return (Passage(text, first(row, "title")),)
    return sections(text)


SOURCE = Source(
    name="medicalgpt",
    title="MedicalGPT",
    homepage="https://github.com/shibing624/MedicalGPT",
    license="Apache-2.0",
    files={"**/*test*": "test", "**/*valid*": "validation", "**/*.json*": "train", "**/*.txt": "train"},
    parse=parse,
    shapes=("passage", "dialogue", "preference"),
    stages=("cpt", "sft", "dpo", "rag"),
    text="file",
    origin=Origin(
        hub(
            "shibing624/medical",
            "main",
            "pretrain/train_encyclopedia.json",
            "pretrain/valid_encyclopedia.json",
            "pretrain/test_encyclopedia.json",
            "pretrain/medical_book_zh.json",
            "finetune/train_zh_0.json",
            "finetune/valid_zh_0.json",
            "finetune/test_zh_0.json",
            "reward/train.json",
            "reward/valid.json",
            "reward/test.json",
        ),
    ),
)
