"""MedicalGPT: pre-training text, instructions, and preference pairs in the forms of its training scripts.

Told apart by columns: `text` (pre-training), `instruction, input, output`, `conversations` (fine-tuning), `question,
response_chosen, response_rejected` (reward), and `conversations, chosen, rejected` (direct preference optimisation).
A plain-text file is a textbook.
"""

from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue, Passage, Preference, Turn
from chimed.sources.sections import sections
from chimed.sources.spec import ROLES, Row, Source, conversation, first, need


def parse(row: Row) -> Iterable[Body]:
    """The passages, dialogue or preference pair of a row.

    >>> row = {"question": "头痛怎么办？", "response_chosen": "先休息，量血压。", "response_rejected": "不知道。"}
    >>> parse(row)[0].rejected
    '不知道。'
    """
    if "text" in row:
        return _passages(row)
    if "response_chosen" in row:
        prompt = (Turn("user", need(row, "question")),)
        return (Preference(prompt, need(row, "response_chosen"), need(row, "response_rejected")),)
    if isinstance(row.get("conversations"), list):
        said = [(str(t.get("from", "")), str(t.get("value") or "")) for t in row["conversations"]]
        if "chosen" in row:
            return (Preference(_prompt(said), need(row, "chosen"), need(row, "rejected")),)
        return (Dialogue(conversation(said)),)
    if "instruction" in row:
        asked, more = need(row, "instruction"), first(row, "input")
        turns = (("user", f"{asked}\n{more}" if more else asked), ("assistant", need(row, "output")))
        return (Dialogue(conversation(turns)),)
    raise RowError("unknown-columns", f"found {', '.join(map(str, row))}; expected text, conversations or question")


def _passages(row: Row) -> Iterable[Body]:
    text = need(row, "text")
    if "name" not in row:  # a row of pre-training text, not a file
        return (Passage(text, first(row, "title")),)
    return sections(text)


def _prompt(said: list[tuple[str, str]]) -> tuple[Turn, ...]:
    """The turns before the reply: they end with the user."""
    turns = []
    for name, content in said:
        role = ROLES.get(name.strip().lower())
        if role is None:
            raise RowError("unknown-role", f"found {name!r}; known are {', '.join(ROLES)}")
        if content.strip():
            turns.append(Turn(role, content.strip()))
    if not turns or turns[-1].role != "user":
        raise RowError("no-question", f"the prompt has {len(turns)} turns and does not end with the user")
    return tuple(turns)


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
)
