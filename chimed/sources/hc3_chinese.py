"""HC3-Chinese: 13,000 questions of forums and encyclopedias, answered by people and by ChatGPT.

Guo et al. 2023, arXiv 2301.07597. JSON lines `question, human_answers[], chatgpt_answers[]`, a subject a file.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import is_url, unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.spec import Row, Source, conversation, need

_ANSWERS = ("human_answers", "chatgpt_answers")


def parse(row: Row) -> Iterable[Body]:
    """The question with its first answer by a person, or by ChatGPT where no person gave one: a question is asked once.

    >>> row = {"question": "什么是血压？", "human_answers": [""], "chatgpt_answers": ["血液对血管壁的压力。"]}
    >>> parse(row)[0].turns[1].content
    '血液对血管壁的压力。'
    """
    if "question" not in row or not set(_ANSWERS) & row.keys():
        raise unknown_columns(row, "question, human_answers, chatgpt_answers")
    question = need(row, "question")
    answers = [str(text or "").strip() for name in _ANSWERS for text in row.get(name) or []]
    answers = [text for text in answers if text]
    if not answers:
        raise RowError("no-answer", question[:80])
    answer = next((text for text in answers if not is_url(text)), "")
    if not answer:
        raise RowError("answer-is-url", answers[0][:80])
    return (Dialogue(conversation((("user", question), ("assistant", answer)))),)


SOURCE = Source(
    name="hc3-chinese",
    title="HC3-Chinese",
    homepage="https://huggingface.co/datasets/Hello-SimpleAI/HC3-Chinese",
    license="CC-BY-SA-4.0",
    files={"**/*.jsonl": "train", "**/*.parquet": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(hub("Hello-SimpleAI/HC3-Chinese", "main", "all.jsonl")),
)
