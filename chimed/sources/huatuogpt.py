"""HuatuoGPT: the 200 questions its evaluation asks, with the replies of GPT-4, and its fine-tuning conversations.

Zhang et al. 2023, arXiv 2305.15075, and Chen et al. 2023, arXiv 2311.09774. Evaluation has two forms: single questions
`query, model_input, model_output`, and consultations that also hold the patient's record (`Description`), what was
really said on haodf.com (`Real Dialogue`, lines 医生： and 病人：) and [question, reply] pairs under `model_output`.
Fine-tuning data is `data`, a list of texts that begin with 问： and 答：, or `conversations`.
"""

import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import sharegpt, unknown_columns
from chimed.sources.meddialog import form
from chimed.sources.origins import Origin, github, hub
from chimed.sources.spec import Row, Source, conversation, first, need

_SPEAKER = re.compile(r"^(医生|病人|患者)[:：][ \t]*\n?", re.MULTILINE)
_ROLES = {"医生": "assistant", "病人": "user", "患者": "user"}
_LABEL = re.compile(r"^(?:问|答)[:：]\s*")


def parse(row: Row) -> Iterable[Body]:
    """The conversation of a row; of an evaluated consultation the one with the model and the one that took place.

    >>> held = "医生：\\n多久了？\\n病人：\\n一周\\n医生：\\n去洗牙。"
    >>> row = {"Description": "牙龈出血", "Real Dialogue": held, "model_output": []}
    >>> [turn.content for turn in parse(row)[0].turns]
    ['牙龈出血', '多久了？', '一周', '去洗牙。']
    """
    if "Real Dialogue" in row:
        return _consultation(row)
    if isinstance(row.get("data"), list):
        said = [str(text or "") for text in row["data"]]
        turns = [("assistant" if place % 2 else "user", _LABEL.sub("", text)) for place, text in enumerate(said)]
        return (Dialogue(conversation(turns)),)
    if "conversations" in row:
        return (sharegpt(row),)
    if {"query", "model_input"} & row.keys() and "model_output" in row:
        asked, answer = need(row, "query", "model_input"), first(row, "model_output")
        return (Dialogue(conversation((("user", asked), ("assistant", answer)))),)
    raise unknown_columns(row, "query, model_output; Description, Real Dialogue, model_output; data or conversations")


def _consultation(row: Row) -> Iterable[Body]:
    department = first(row, "Doctor faculty")
    pairs = row.get("model_output") or []
    if not isinstance(pairs, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise RowError("pairs-not-lists", f"found {str(pairs)[:60]}")
    asked = [(role, str(text or "")) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    _, *lines = _SPEAKER.split(first(row, "Real Dialogue"))
    held = [("user", form(first(row, "Description")))]
    held += [(_ROLES[who], form(text)) for who, text in zip(lines[::2], lines[1::2], strict=True)]
    told = [turns for turns in (asked, held) if any(role == "assistant" and text.strip() for role, text in turns)]
    if not told:
        raise RowError("no-answer")
    return tuple(Dialogue(conversation(turns), department) for turns in told)


SOURCE = Source(
    name="huatuogpt",
    title="HuatuoGPT",
    homepage="https://github.com/FreedomIntelligence/HuatuoGPT",
    license="unknown",
    files={"**/*huatuo100*": "test", "**/*_100.json": "test", "**/*.json*": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(
        (
            *hub(
                "FreedomIntelligence/HuatuoGPT-sft-data-v1",
                "main",
                "HuatuoGPT_sft_data_v1.jsonl",
            ),
            *hub(
                "FreedomIntelligence/HuatuoGPT2-SFT-GPT4-140K",
                "4077ffaeb123e49b8b8a0283f42957a5570a52ce",
                "HuatuoGPT2-GPT4-SFT-140K.json",
            ),
            *github(
                "FreedomIntelligence/HuatuoGPT", "827c44abf4b0f984af0e4672633df09c710e63bb", "eval/KUAKE-QIC_100.json"
            ),
            *github(
                "FreedomIntelligence/HuatuoGPT", "1412a5d250f411b5739576fda6e3683ba99ebcd1", "eval/Med-dialog_100.json"
            ),
        ),
    ),
)
