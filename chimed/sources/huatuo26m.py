"""Huatuo-26M: questions and answers from encyclopedias, knowledge graphs and consultations, and its test set of 6,000.

Li et al. 2023, arXiv 2305.01526. The parts have one form, `{"questions": [...], "answers": [...]}` with lists nested to
different depths: the questions are phrasings of one question. The answers of the consultation part are addresses of
pages that are gone. The test set has `instruction` and `output` lists; the Lite edition plain columns.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import is_url, unknown_columns
from chimed.sources.origins import Origin, github, hub
from chimed.sources.spec import Row, Source, conversation, first

# The heading of a part of an answer that is not there: before another heading, and at the end.
_EMPTY_PART = re.compile(r"(?:病情|问题|病例)分析[:：]\s*(?=(?:意见|指导)(?:意见|建议)[:：])")
_EMPTY_END = re.compile(r"\s*(?:(?:病情|问题|病例)分析|(?:意见|指导|健康)(?:意见|建议|指导))[:：]$")


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        text = value.strip()
        return [text] if text else []
    return [text for item in value for text in _texts(item)] if isinstance(value, list | tuple) else []


def parse(row: Row) -> Iterable[Body]:
    """The first phrasing of the question with the first answer that is text.

    The other phrasings are left out: they would be near-duplicates with one and the same answer.

    >>> row = {"questions": [["百日咳传染吗？", "百日咳会传染？"]], "answers": ["会，经飞沫传播。"]}
    >>> parse(row)[0].turns[0].content
    '百日咳传染吗？'
    """
    for ask, reply in (("questions", "answers"), ("instruction", "output"), ("question", "answer")):
        if ask in row and reply in row:
            break
    else:
        raise unknown_columns(row, "questions, answers")
    questions, answers = _texts(row[ask]), _texts(row[reply])
    if not questions:
        raise RowError("no-question")
    if not answers:
        raise RowError("no-answer")
    answer = next((text for text in answers if not is_url(text)), "")
    if not answer:
        raise RowError("answer-is-url", answers[0][:80])
    more = first(row, "input")
    if "分析" in answer:
        answer = _EMPTY_PART.sub("", answer)
    if answer.endswith((":", "：")):
        answer = _EMPTY_END.sub("", answer)
    turns = conversation((("user", f"{questions[0]}\n{more}" if more else questions[0]), ("assistant", answer)))
    return (Dialogue(turns, first(row, "label")),)


_PARTS = ("train_datasets.jsonl", "validation_datasets.jsonl", "test_datasets.jsonl")

SOURCE = Source(
    name="huatuo26m",
    title="Huatuo-26M",
    homepage="https://github.com/FreedomIntelligence/Huatuo-26M",
    license="Apache-2.0",
    files={"**/*test*": "test", "**/*valid*": "validation", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    max_rejects=0.97,  # the consultation part, if present, is most of the rows and has addresses for answers
    origin=Origin(
        (
            *hub(
                "FreedomIntelligence/huatuo_encyclopedia_qa",
                "ad084bece670ddbecf32707cbbe3362824d3bed8",
                *_PARTS,
                folder="encyclopedia/",
            ),
            *hub(
                "FreedomIntelligence/huatuo_knowledge_graph_qa",
                "b01fb013d5595abe18c97408dd2fc939e4f7ea3f",
                *_PARTS,
                folder="knowledge_graph/",
            ),
            *hub("FreedomIntelligence/Huatuo26M-Lite", "main", "format_data.jsonl", folder="lite/"),
            *github(
                "SupritYoung/Zhongjing",
                "92bdb5439df1d148cbda9be42950e99b4cd09a3b",
                "data/huatuo26M_test.json",
                sha256="b023079b97ab6f87e3fed018150ec8728dde12ea80117c91139356f15b47835a",
            ),
        ),
    ),
)
