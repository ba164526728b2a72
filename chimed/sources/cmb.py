"""CMB: 280,839 items of Chinese medical exams of six professions, and 74 clinical cases with questions.

Wang et al. 2023, arXiv 2308.08833. Exams are a JSON list `exam_type, exam_class, exam_subject, question, answer,
question_type, option {"A": …}`; the answers to the test split stand in a file of their own. A case is `title,
description, QA_pairs [{question, answer}]`: one conversation that opens with the patient's record.
"""

import json
from collections.abc import Iterable, Mapping

from chimed.errors import RowError
from chimed.records import Body, Dialogue, Exam
from chimed.sources.forms import unknown_columns
from chimed.sources.spec import Row, Source, conversation, first, letters, need, split_options


def parse(row: Row) -> Iterable[Body]:
    """The exam item or the case of a row; an option without text is none.

    >>> row = {"question": "胆囊位于", "option": {"A": "肝下", "B": "胃内", "C": ""}, "answer": "A"}
    >>> parse(row)[0].options
    ('肝下', '胃内')
    """
    if "QA_pairs" in row:
        return (_case(row),)
    if not row.keys() >= {"question", "option"}:
        raise unknown_columns(row, "exam_type, exam_class, exam_subject, question, answer, question_type, option")
    question, options = need(row, "question"), split_options(_options(row["option"]))
    answer = first(row, "answer")
    if not answer:
        raise RowError("no-answer", question[:80], held=question)
    return (
        Exam(
            question=question,
            options=options,
            answer=letters(answer, len(options)),
            explanation=first(row, "explanation"),
            discipline=first(row, "exam_subject", "exam_class", "exam_type"),
        ),
    )


def _options(value: object) -> object:
    """Options as an object; some copies hold the text of one."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError as fault:
            raise RowError("broken-json", f"option: {fault}") from None
    return value


def _case(row: Row) -> Dialogue:
    description = need(row, "description")
    pairs = row["QA_pairs"]
    if not isinstance(pairs, list) or not all(isinstance(pair, Mapping) for pair in pairs):
        raise RowError("pairs-not-objects", f"found {str(pairs)[:60]}")
    turns = [("user", description)]
    for pair in pairs:
        turns += [("user", first(dict(pair), "question")), ("assistant", first(dict(pair), "answer", "solution"))]
    return Dialogue(conversation(turns))


SOURCE = Source(
    name="cmb",
    title="CMB",
    homepage="https://github.com/FreedomIntelligence/CMB",
    license="Apache-2.0",
    # Not the answers to the test split nor its hierarchy: no pattern, so they are told as unread.
    files={
        "**/*train*": "train",
        "**/*val*": "validation",
        "**/*question*": "test",
        "**/*qa.json": "test",
        "**/test*": "test",
    },
    parse=parse,
    shapes=("exam", "dialogue"),
    stages=("cpt", "sft", "dpo"),
)
