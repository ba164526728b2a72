"""CMB: 280,839 items of Chinese medical exams of six professions, and 74 clinical cases with questions.

Wang et al. 2023, arXiv 2308.08833. Exams are a JSON list `exam_type, exam_class, exam_subject, question, answer,
question_type, option {"A": …}`; the answers to the test split stand in a file of their own, by `id`. A case is `title,
description, QA_pairs [{question, answer}]`: one conversation that opens with the patient's record.
"""

import json
from collections.abc import Iterable, Mapping

from chimed.errors import RowError
from chimed.records import Body, Dialogue, Exam
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, github, hub
from chimed.sources.spec import Lookup, Row, Source, conversation, first, letters, need, split_options


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
        raise RowError("no-answer", question[:80], held=question, options=options)
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
    files={
        "**/*train*": "train",
        "**/*val*": "validation",
        "**/*question*": "test",
        "**/*qa.json": "test",
        "**/test*": "test",
    },
    lookups=(
        Lookup(("**/*answer*",), into=("**/*question*",), key="id", columns={"answer": "answer"}, held="question"),
    ),
    parse=parse,
    shapes=("exam", "dialogue"),
    stages=("cpt", "sft", "dpo"),
    origin=Origin(
        (
            *hub(
                "FreedomIntelligence/CMB",
                "main",
                "CMB-Exam/CMB-train/CMB-train-merge.json",
                "CMB-Exam/CMB-val/CMB-val-merge.json",
                "CMB-Exam/CMB-test/CMB-test-choice-question-merge.json",
                "CMB-Clin/CMB-Clin-qa.json",
            ),
            *github(
                "FreedomIntelligence/CMB",
                "9288d3708e98e028be5bf2df666b6ecd8ea57829",
                "data/CMB-test-choice-answer.json",
            ),
        ),
    ),
)
