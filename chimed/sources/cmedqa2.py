"""cMedQA2: 108,000 questions put to doctors of a Chinese health forum, with 203,569 answers.

Zhang et al. 2018, "Multi-Scale Attentive Interaction Networks for Chinese Medical Question Answer Selection" (IEEE
Access). Upstream keeps questions (`question_id, content`), answers (`ans_id, question_id, content`) and the splits
(`question_id, pos_ans_id, neg_ans_id` or `question_id, ans_id, cnt, label`) in files of their own: the answers are the
rows, the others are looked up. 12,000 of the 120,000 questions stand in no split: their answers are rejected, since
nobody says whether they were held out. What circulates joined has a question with one answer, or with lists of right
and wrong ones. A wrong answer is the right one to another question: not a worse answer, so no preference pair.
"""

from collections.abc import Iterable, Iterator

from chimed.errors import RowError
from chimed.records import Body, Dialogue, Split
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Lookup, Row, Source, conversation

_QUESTION = ("question", "query", "prompt", "instruction")
_ANSWER = ("answer", "answers", "pos", "positive", "pos_answers", "output")
_IDS = {"question_id", "ans_id", "pos_ans_id", "neg_ans_id"}


def parse(row: Row) -> Iterable[Body]:
    """A dialogue for each right answer.

    >>> row = {"query": "嗓子疼吃什么药？", "positive": ["多喝温水。", "可以含服西瓜霜。"], "negative": ["热敷。"]}
    >>> [dialogue.turns[1].content for dialogue in parse(row)]
    ['多喝温水。', '可以含服西瓜霜。']
    """
    asks = next((name for name in _QUESTION if name in row), "")
    replies = next((name for name in _ANSWER if name in row), "")
    if not replies and asks and "content" in row:  # answers to which their questions were joined
        replies = "content"
    if not asks or not replies:
        if _IDS & row.keys():
            raise RowError(
                "not-joined", f"found {', '.join(row)}; question.csv and answer.csv are joined, nothing else"
            )
        raise unknown_columns(row, "question, answer or query, positive, negative")
    question = next(_texts(row[asks]), "")
    if not question:
        raise RowError("no-question")
    answers = list(dict.fromkeys(_texts(row[replies])))
    if not answers:
        raise RowError("no-answer")
    return tuple(Dialogue(conversation((("user", question), ("assistant", answer)))) for answer in answers)


def _texts(value: object) -> Iterator[str]:
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, str) and text.strip():
            yield text.strip()


def _split(split: Split, *names: str) -> Lookup:
    files = tuple(f"**/{name}_candidates.*" for name in names)
    return Lookup(files, into=("**/*.csv",), key="question_id", split=split)


SOURCE = Source(
    name="cmedqa2",
    title="cMedQA2",
    homepage="https://github.com/zhangsheng93/cMedQA2",
    license="non-commercial research",
    files={
        "**/*dev*.[jp]*": "validation",
        "**/*val*.[jp]*": "validation",
        "**/*test*.[jp]*": "test",
        "**/*.json*": "train",
        "**/*.parquet": "train",
        "**/*.csv": "train",
    },
    lookups=(
        Lookup(
            ("**/question.csv", "**/questions.csv"),
            into=("**/*.csv",),
            key="question_id",
            columns={"content": "question"},
        ),
        _split("test", "test"),
        _split("validation", "dev", "val"),
        _split("train", "train"),
    ),
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    origin=Origin(
        github(
            "zhangsheng93/cMedQA2",
            "85feb9278c3ae552c591205cbf3e828368c91f8f",
            "question.zip",
            "answer.zip",
            "test_candidates.zip",
            "dev_candidates.zip",
            "train_candidates.zip",
        )
    ),
)
