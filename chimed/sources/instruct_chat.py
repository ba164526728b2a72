"""Instruct_chat: 51,000 general conversations of Chinese-Vicuna, 30,000 from ShareGPT and 20,000 from Alpaca.

JSON lines with parallel lists: `input[i]` was answered by `output[i]`; some rows hold single texts. Part of it is in
traditional characters, which cleaning converts.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import alpaca, unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.spec import Row, Source, conversation


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns.

    >>> [turn.content for turn in parse({"input": ["你好", "再见"], "output": ["您好！", "再见！"]})[0].turns]
    ['你好', '您好！', '再见', '再见！']
    """
    if "instruction" in row:
        return (alpaca(row),)
    if not row.keys() >= {"input", "output"}:
        raise unknown_columns(row, "input and output, lists of texts")
    asked, answers = _texts(row["input"]), _texts(row["output"])
    if not 0 <= len(asked) - len(answers) <= 1:  # the last input may have gone unanswered
        raise RowError("turns-not-parallel", f"found {len(asked)} inputs and {len(answers)} outputs")
    turns = [turn for i, answer in enumerate(answers) for turn in (("user", asked[i]), ("assistant", answer))]
    return (Dialogue(conversation(turns)),)


def _texts(value: object) -> list[str]:
    return [str(text or "") for text in (value if isinstance(value, list) else [value])]


SOURCE = Source(
    name="instruct-chat",
    title="Instruct_chat (Chinese-Vicuna)",
    homepage="https://huggingface.co/datasets/Chinese-Vicuna/instruct_chat_50k.jsonl",
    license="Apache-2.0",
    files={"**/*.json*": "train", "**/*.parquet": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(hub("Chinese-Vicuna/instruct_chat_50k.jsonl", "main", "instruct_chat_50k.jsonl")),
)
