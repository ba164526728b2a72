"""MedQA: 34,251 items of Chinese medical licensing exams and the 33 textbooks that answer them.

Jin et al. 2020, arXiv 2009.13081. Of the three regions only Mainland is read: questions are JSON lines `question,
options, answer, answer_idx, meta_info`, textbooks plain text with a paragraph a line. Other editions of the same stay
unread: items cut down to four options, the pool of all splits, books parted by sentences or joined to one file.
"""

from collections.abc import Iterable, Mapping

from chimed.errors import RowError
from chimed.records import Body, Exam
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.sections import sections
from chimed.sources.spec import Row, Source, first, letters, need, split_options


def parse(row: Row) -> Iterable[Body]:
    """The exam item of a row, or the sections of a textbook.

    >>> row = {"question": "胰岛素由何种细胞分泌", "options": {"A": "α细胞", "B": "β细胞"}, "answer": "β细胞"}
    >>> parse(row)[0].answer
    'B'
    """
    if isinstance(row.get("text"), str):
        found = sections(row["text"], str(row.get("name", "")))
        if not found:
            raise RowError("no-text", "nothing is left when page furniture is taken away")
        return found
    if not row.keys() >= {"question", "options"}:
        raise unknown_columns(row, "question, options, answer, answer_idx, meta_info; or plain text")
    value = row["options"]
    if isinstance(value, list) and all(isinstance(option, Mapping) for option in value):
        value = {str(option.get("key")): option.get("value") for option in value}
    options = split_options(value)
    return (Exam(need(row, "question"), options, _key(row, options), discipline=first(row, "meta_info")),)


def _key(row: Row, options: tuple[str, ...]) -> str:
    """The letter under `answer_idx`, or the one of the option that `answer` repeats."""
    letter, answer = first(row, "answer_idx"), first(row, "answer")
    if letter or not answer:
        return letters(letter, len(options))
    if answer not in options:
        raise RowError("answer-not-an-option", f"found {answer[:40]!r}")
    return "ABCDEFGHIJ"[options.index(answer)]


SOURCE = Source(
    name="medqa",
    title="MedQA (Mainland)",
    homepage="https://github.com/jind11/MedQA",
    license="MIT",
    files={
        "**/Mainland/test.jsonl": "test",
        "**/Mainland/dev.jsonl": "validation",
        "**/Mainland/train.jsonl": "train",
        "test.jsonl": "test",
        "dev.jsonl": "validation",
        "train.jsonl": "train",
        "**/zh_paragraph/[!a]*.txt": "train",  # all but all_books.txt
        "*.txt": "train",
    },
    parse=parse,
    shapes=("passage", "exam"),
    stages=("cpt", "sft", "dpo", "rag"),
    text="file",
    origin=Origin(hub("bigbio/med_qa", "ddef95d268cdad413693d634279a9a679d468469", "data_clean.zip")),
)
