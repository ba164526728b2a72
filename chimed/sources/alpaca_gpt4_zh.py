"""Alpaca-GPT4-zh: the 52,000 instructions of Alpaca in Chinese, with answers of GPT-4.

Peng et al. 2023, arXiv 2304.03277. `instruction, input, output`; a copy that keeps the English beside it calls them
`instruction_zh, input_zh, output_zh`.
"""

from collections.abc import Iterable

from chimed.records import Body
from chimed.sources.forms import alpaca
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source

_NAMES = ("instruction", "input", "output")


def parse(row: Row) -> Iterable[Body]:
    """The instruction and its answer.

    >>> parse({"instruction": "举一个近义词", "input": "高兴", "output": "快乐"})[0].turns[0].content
    '举一个近义词\\n高兴'
    """
    if "instruction_zh" in row:
        row = {name: row.get(f"{name}_zh") for name in _NAMES}
    return (alpaca(row),)


SOURCE = Source(
    name="alpaca-gpt4-zh",
    title="Alpaca-GPT4-zh",
    homepage="https://github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM",
    license="CC-BY-NC-4.0",
    files={"**/*zh*.json*": "train", "**/*zh*.parquet": "train", "train*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(
        github("Instruction-Tuning-with-GPT-4/GPT-4-LLM", "main", "data/alpaca_gpt4_data_zh.json"),
    ),
)
