"""Multiturn_chat 0.8M (BELLE): general conversations that ChatGPT held with itself.

Ji et al. 2023, arXiv 2303.14742. `instruction, input, output`: the instruction holds all turns but the last reply, each
behind "Human:" or "Assistant:" at the start of a line, with half- or full-width colons.
"""

import re
from collections.abc import Iterable, Iterator

from chimed.records import Body, Dialogue
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.spec import Row, Source, conversation, first, need

_LABEL = re.compile(r"^[ \t]*(Human|Assistant)[ \t]*[:：]", re.MULTILINE)
_ROLES = {"Human": "user", "Assistant": "assistant"}


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row, with all its turns.

    >>> row = {"instruction": "Human:你好\\nAssistant：您好\\nHuman: Human: 译\\nAssistant:", "output": "人类。"}
    >>> [turn.content for turn in parse(row)[0].turns]
    ['你好', '您好', 'Human: 译', '人类。']
    """
    if not row.keys() >= {"instruction", "output"}:
        raise unknown_columns(row, "instruction, input, output")
    asked, more = need(row, "instruction"), first(row, "input")
    turns = list(_turns("user", f"{asked}\n{more}" if more else asked))
    return (Dialogue(conversation([*turns, *_turns("assistant", need(row, "output"))])),)


def _turns(role: str, text: str) -> Iterator[tuple[str, str]]:
    """The turns of a text that `role` begins. Speakers take turns: a label of who speaks already is what was said."""
    start = 0
    for label in _LABEL.finditer(text):
        opening = not text[: label.start()].strip()
        if opening and role == "assistant" and _ROLES[label[1]] == "user":
            continue  # a reply that explains the label
        if opening or _ROLES[label[1]] != role:
            yield role, text[start : label.start()]
            role, start = _ROLES[label[1]], label.end()
    yield role, text[start:]


SOURCE = Source(
    name="multiturn-chat",
    title="BELLE multiturn_chat 0.8M",
    homepage="https://huggingface.co/datasets/BelleGroup/multiturn_chat_0.8M",
    license="GPL-3.0",
    files={"**/*.json*": "train", "**/*.parquet": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(hub("BelleGroup/multiturn_chat_0.8M", "main", "multiturn_chat_0.8M.json")),
)
