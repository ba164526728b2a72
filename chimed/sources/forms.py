"""The forms that many sources share: Alpaca instructions, ShareGPT conversations, preference pairs and triples.

Each takes a row as the readers give it and returns its body (of rankings, its bodies), or raises RowError:
`unknown-columns` with what was found and what was expected when the row is not of the form, and the reasons of
`chimed.sources.spec` otherwise.
"""

from collections.abc import Mapping
from itertools import pairwise

from chimed.errors import RowError
from chimed.records import Dialogue, Fact, Preference, Turn
from chimed.sources.relations import RELATIONS, fact
from chimed.sources.spec import ROLES, Row, conversation, first, need

Said = list[tuple[str, str]]  # (role in the dialect of the upstream, content)


def unknown_columns(row: Row, expected: str) -> RowError:
    """The reject of a row that has none of the known forms.

    >>> unknown_columns({"q": "", "a": ""}, "question, answer")
    RowError('unknown-columns: found q, a; expected question, answer')
    """
    found = ", ".join(str(name) for name in row if name != "#file")
    return RowError("unknown-columns", f"found {found}; expected {expected}")


def is_url(text: str) -> bool:
    """Whether a text is nothing but an address: some upstreams give one where an answer should stand."""
    return text.startswith(("http://", "https://", "www.")) and not any(c.isspace() for c in text)


def alpaca(row: Row) -> Dialogue:
    """The conversation of `instruction, input, output` with an optional `history` of [question, answer] pairs.

    >>> [turn.content for turn in alpaca({"instruction": "翻译成中文", "input": "fever", "output": "发热"}).turns]
    ['翻译成中文\\nfever', '发热']
    """
    if not ({"instruction", "instruct"} & row.keys() and "output" in row):
        raise unknown_columns(row, "instruction, input, output")
    return Dialogue(conversation((*_asked(row), ("assistant", _answer(row, "output")))))


def sharegpt(row: Row) -> Dialogue:
    """The conversation of `conversations` (from, value) or `messages` (role, content), with an optional `system`.

    >>> said = [{"from": "human", "value": "牙疼"}, {"from": "gpt", "value": "多久了？"}]
    >>> sharegpt({"conversations": said}).turns[1]
    Turn(role='assistant', content='多久了？')
    """
    return Dialogue(conversation(_said(row)))


def reward(row: Row) -> tuple[Preference, ...]:
    """The pairs of any of the four forms in which preferences circulate.

    - reward model: `question, response_chosen, response_rejected`, with optional `system` and `history`
    - TRL: `prompt, chosen, rejected`, texts or lists of turns that repeat the prompt
    - LLaMA-Factory: `conversations, chosen, rejected`, replies as texts or as one turn
    - ranked: `instruction, input, output`, the output a list of replies from best to worst: a pair for each two
      neighbours, so that no reply counts more than twice and small differences are learnt as well as large ones

    >>> ranked = {"instruction": "失眠", "input": "", "output": ["规律作息。", "少想点。", "不知道。"]}
    >>> [(pair.chosen, pair.rejected) for pair in reward(ranked)]
    [('规律作息。', '少想点。'), ('少想点。', '不知道。')]
    """
    if {"question", "response_chosen", "response_rejected"} <= row.keys():
        said = [*_system(row), *_history(row), ("user", need(row, "question"))]
        return (Preference(_prompt(said), _answer(row, "response_chosen"), _answer(row, "response_rejected")),)
    if {"chosen", "rejected"} <= row.keys() and (said := _before(row)):
        return (Preference(_prompt(said), _reply(row, "chosen"), _reply(row, "rejected")),)
    if "instruction" in row and isinstance(row.get("output"), list):
        replies = [text for reply in row["output"] if (text := str(reply or "").strip())]
        if len(replies) < 2:
            raise RowError("no-answer", f"found {len(row['output'])} replies, of which {len(replies)} hold text")
        prompt = _prompt(_asked(row))
        return tuple(Preference(prompt, better, worse) for better, worse in pairwise(replies))
    raise unknown_columns(
        row,
        "question, response_chosen, response_rejected; prompt or conversations, chosen, rejected; "
        "or instruction, output as a list",
    )


def triple(row: Row, names: Mapping[str, str]) -> Fact:
    """The fact of `head, relation, tail`: entities as text, with their type behind @@, or with it in a column.

    `names` gives our name for an upstream's relation. It holds where the head is of the type that our relation has;
    for other heads, and for relations of which we have none, the upstream's name and types stay.

    >>> triple({"head": "肺炎@@疾病", "relation": "药物治疗", "tail": "阿莫西林@@药物"}, {"药物治疗": "常用药物"})
    Fact(head='肺炎', relation='常用药物', tail='阿莫西林', head_type='疾病', tail_type='药品')
    """
    if not {"head", "head_entity"} & row.keys() or not {"relation", "rel"} & row.keys():
        raise unknown_columns(row, "head, relation, tail")
    relation = need(row, "relation", "rel")
    return edge(
        (need(row, "head", "head_entity"), first(row, "head_type")),
        relation,
        (need(row, "tail", "tail_entity"), first(row, "tail_type")),
        names,
    )


def edge(one: tuple[str, str], relation: str, other: tuple[str, str], names: Mapping[str, str]) -> Fact:
    """The fact of a relation between two entities, each with its type, or "" where it stands behind @@; see `triple`.

    >>> edge(("肺炎@@疾病", ""), "预防", ("肺炎", ""), {})
    Traceback (most recent call last):
    chimed.errors.RowError: not-a-fact: found '肺炎' 预防 '肺炎'
    """
    (head, head_type), (tail, tail_type) = _entity(*one), _entity(*other)
    if not head or not tail or head == tail:
        raise RowError("not-a-fact", f"found {head!r} {relation} {tail!r}")
    known = names.get(relation, relation)
    ends = RELATIONS.get(known)
    if ends and (head_type in {"", ends.head} or known == "别名"):  # everything can have another name
        return fact(head, known, tail, head_type)
    return Fact(head, relation, tail, head_type, tail_type)


def _entity(text: str, kind: str) -> tuple[str, str]:
    name, _, behind = text.partition("@@")
    return name.strip(), kind or behind.strip()


def turns_of(value: object) -> Said:
    """(role, content) pairs from a list of turns in either spelling. Raises RowError `turns-not-objects`.

    >>> turns_of([{"role": "user", "content": "你好"}])
    [('user', '你好')]
    """
    said: Said = []
    for turn in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(turn, Mapping):
            raise RowError("turns-not-objects", f"found {str(turn)[:60]!r}; expected from, value or role, content")
        said.append((str(turn.get("from") or turn.get("role") or ""), first(dict(turn), "value", "content")))
    return said


def _said(row: Row) -> Said:
    for name in ("conversations", "conversation", "messages"):
        if isinstance(row.get(name), list):
            return _system(row) + turns_of(row[name])
    raise unknown_columns(row, "conversations or messages")


def _system(row: Row) -> Said:
    return [("system", first(row, "system"))]


def _history(row: Row) -> Said:
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise RowError("history-not-pairs", f"found {str(pairs)[:60]}")
    return [(role, str(text or "")) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]


def _asked(row: Row) -> Said:
    """What stands before the output of an Alpaca row; some copies leave the instruction empty and ask in the input."""
    asked, more = need(row, "instruction", "instruct", "input"), first(row, "input")
    return [*_system(row), *_history(row), ("user", f"{asked}\n{more}" if more and more != asked else asked)]


def _answer(row: Row, name: str) -> str:
    text = need(row, name)
    if is_url(text):
        raise RowError("answer-is-url", text[:80])
    return text


def _before(row: Row) -> Said:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return [*_system(row), *_history(row), ("user", need(row, "prompt"))]
    if isinstance(prompt, list):
        return _system(row) + turns_of(prompt)
    return _said(row) if isinstance(row.get("conversations"), list) else []


def _reply(row: Row, name: str) -> str:
    """A reply as text, as one turn, or as the last turn of a list that repeats the prompt."""
    value = row[name]
    if isinstance(value, Mapping | list) and value:
        return _answer({name: turns_of(value)[-1][1]}, name)
    return _answer(row, name)


def _prompt(said: Said) -> tuple[Turn, ...]:
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
