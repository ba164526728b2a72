"""MedDialog (Medical-Dialogue-System): 3.4 million consultations of haodf.com between patients and doctors.

Chen et al. 2020, arXiv 2004.03329, with the dialogues on COVID-19 of the same authors. Upstream's text is a block a
consultation: `id=`, an address, `Doctor faculty`, then `Description` (the patient's form), `Dialogue` (病人：and 医生：
on lines of their own) and `Diagnosis and suggestions`, the last three as often as the patient came back. Processed
copies are lists of texts that begin with 病人：or 医生：, bare or under `utterances`; lists of speakers and of what was
said (`dialogue_turns`); and `input, output, history`, where what is called history followed the first answer.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache

from chimed.errors import RowError
from chimed.records import Body, Dialogue
from chimed.sources.forms import Said, is_url, unknown_columns
from chimed.sources.origins import Origin
from chimed.sources.spec import Many, Row, Source, conversation, first

_SPEAKERS = {"病人": "patient", "患者": "patient", "医生": "doctor", "0": "patient", "1": "doctor"}
_LABEL = re.compile(r"(病人|患者|医生)[:：]\s*")
# Lines, and beginnings of lines, with the newline before: a search for that is fast, one for ^ is slow.
_PART = re.compile(r"\n[^\S\n]*(Doctor faculty|Description|Dialogue|Diagnosis and suggestions)[^\S\n]*(?=\n|\Z)")
_ALONE = re.compile(r"\n[^\S\n]*(病人|患者|医生)[:：][^\S\n]*(?=\n|\Z)")
_LEADING = re.compile(r"\n[^\S\n]*(病人|患者|医生)[:：]")

# What the platform writes into a conversation, or has doctors send at a click. Most of it is glued to what was said.
_PLATFORM = re.compile(
    r"感谢您的信任，病情资料我已详细阅读。\s*(?:根据您现有的资料，建议：|您目前的检查资料不齐全，需要补充以下检查：)?[，,\s]*"
    r"|[你您]好[，！]我已经?仔细研读了您的资料，很高兴为您提供医学指导帮助！"
    r"|医生(?:使用隐私电话功能与患者通话|给患者打电话患者未接听)[:：]?"
    r"|(?<!.)生给患者打电话患者未接听[:：]?"
    r"|医生已经通过语音回答了您的问题，请及时收听。[:：\s]*"
    r"|医生给您发来一个提醒[:：]?"
    r"|(?:请?尽快填表，我需要了解你的情况[:：]\s*)+《[^》]*》[:：]?"
    r"|(?:您好！ ?我现在正忙，会尽快答复您的问题，请等候！)?还有一些细节需要问你 ?你只要注意回答就可以啦！"
    r"(?:或你注意接听010开头的电话。好大夫在线电话）)?"
    r"|如果[你您]觉得我回答对[你您]有帮助请给我好评，?|请[你您]对我的服务提出宝贵的建议或意见！?"
    r"|没有其他问题，系统将在随后关闭这个问题。"
    r"|如果有需要，可以点我头像关注我或者搜索我的名字就可以找到我，随时跟我对话向我咨询。"
    r"|(?:病历图片|资料照片|附件)?(?:资料)?(?:[（(]\d+[）)][:：])?\s*(?:病历资料)?(?:隐私内容[，,])?仅(?:主诊)?医生[及和]患者本人可见"
    r"|(?:开药需求|真情寄语)[:：]?\s*(?!.)|(?<!.)有新资料上传\s*(?!.)"
    r"|详细请参见问诊记录。?"
    r"|《[^《》\n]{4,60}》[:：][ \t]*(?=《|\n|$)"  # an article that the doctor sent
    r"|(?:当然了，)?如果(?:对我的回答感到满意|[你您]觉得我有帮助到[你您])，(?:请|希望您)给(?:[予与]|我一个)好评[！，]?(?:与暖心推荐[！，]?)?(?:谢谢[！。]?)?"
    r"|麻烦打?个?好评下?(?:，谢谢)?"
    r"|（医生留言）[你您]好，很高兴成为[你您]的私人医生，通过这里可以长期联系到我。"
)
# Every phrase holds one of these; most texts hold none, and a search for the phrases takes forty times as long.
_PLATFORM_MARKS = (
    *("详细阅读", "研读了您的资料", "隐私电话", "患者打电话", "语音回答了", "提醒", "填表", "细节需要问你", "好评"),
    *("宝贵的建议", "随后关闭", "头像关注我", "本人可见", "需求", "寄语", "新资料上传", "参见问诊记录", "》", "留言"),
)
# One pass: a search for each of the marks takes three times as long, one with a set like [:：] among them five times.
_MARKED = re.compile("|".join(_PLATFORM_MARKS)).search
_SPECIAL = re.compile("|".join(["\n", ":", "：", r"\)", "）", "我已完成了", *_PLATFORM_MARKS])).search
_WORD = re.compile(r"[\w+]").search
_SCALE = re.compile(r"我已完成了\S{2,8}医生下发的(《[^》]*》)[:：]?\s*(得分[:：]\d+分)?")
_WRITTEN = re.compile(r"[（(]\d{4}-\d\d-\d\d(?:填写|测量)[）)]")
# A prescription that upstream glued to the turn before it; further drugs became turns of the patient.
_PRESCRIPTION = re.compile(r"(?:疾病诊断|药品)[:：]")
_DRUG = re.compile(r"[^，。？！、\s]{1,20}(?:片|胶囊|颗粒|丸|液|散|剂|膏|粉|糖浆|栓|贴)(?:（[^）]{1,20}）)?")

# Of these, lines that hold nothing else.
_SENT = (
    "感谢您的信任，病情资料我已详细阅读。",
    "您好，我已经仔细研读了您的资料，很高兴为您提供医学指导帮助！",
    "没有其他问题，系统将在随后关闭这个问题。",
    "医生使用隐私电话功能与患者通话：",
    "医生给患者打电话患者未接听：",
)

_WISH = "希望获得的帮助"
# The fields of a patient's form and of a doctor's summary -> how they are called here; "" is left out.
_FIELDS = {
    **dict.fromkeys(("疾病", "疾病/症状", "疾病名称", "所患疾病"), "疾病"),
    **{name: name for name in ("病情描述", "患病多久", "怀孕情况", "用药情况", "过敏史", "既往病史", "身高体重")},
    "曾经治疗情况和效果": "治疗情况",
    **dict.fromkeys(("想得到怎样的帮助", "希望获得的帮助", "患者诉求"), _WISH),
    **{
        name: name
        for name in (
            "已就诊医院及科室",
            "检查及化验",
            "用药描述",
            "生育计划或状态",
            "医生给的诊疗建议",
            "主诉",
            "现病史",
            "初步诊断",
        )
    },
    "病情摘要及初步印象": "初步印象",
    **dict.fromkeys(("总结建议", "处置建议"), "建议"),
    "疾病诊断": "诊断",
    "药品": "药品",
    **dict.fromkeys(
        ("预约医生", "就诊时间", "就诊患者", "就诊地点", "本次就诊时间", "报到来源", "目前是否仍在住院"), ""
    ),
    **dict.fromkeys(("住院时是否做了手术", "出院日期", "复诊时间", "复查时间", "是否有出院带药", "是否开了检查"), ""),
    **dict.fromkeys(("是否拿到检查结果", "是否开药", "现在住院了吗", "处方审核通过"), ""),
}
_FIELD = re.compile(r"([^（:：]{2,10})(?:（[^）]*）)?[:：]\s*(.*)").match
_NOTHING = {
    "",
    "无",
    "没有",
    "未知",
    "不知道",
    "不清楚",
    "不详",
    "不需要",
    "暂无",
    "咨询",
    "健康咨询",
    "暂时无法给出",
    "未填写",
}
_FREE = "\n"  # text under no field: no line begins so
_ANSWERED = {_FREE, "过敏史", "既往病史", "用药情况", "怀孕情况"}  # here "无" is an answer


def parse(row: Row) -> Iterable[Body]:
    """The consultation of a row, with all its turns; the patient's form is the first one.

    >>> text = "id=1\\n\\nDescription\\n疾病：\\n痤疮\\n\\nDialogue\\n病人：\\n怎么治？\\n医生：\\n先用阿达帕林。"
    >>> [turn.content for turn in parse({"text": text, "name": "2010"})[0].turns]
    ['疾病：痤疮\\n怎么治？', '先用阿达帕林。']
    """
    if isinstance(row.get("text"), str):
        return (_block(row["text"]),)
    said, department = _processed(row), ""
    if isinstance(row.get("Doctor faculty"), str):
        department = _department(row["Doctor faculty"])
    answers = [text for role, text in said if role == "doctor"]
    if answers and all(map(is_url, answers)):
        raise RowError("answer-is-url", answers[0][:80])
    return (Dialogue(conversation((role, form(text)) for role, text in said), department),)


def _processed(row: Row) -> Said:
    """The turns of a row of the processed copies."""
    for name in ("#items", "utterances", "Dialogue", "dialogue"):
        if isinstance(row.get(name), list):
            return [("patient", first(row, "description", "Description")), *_prefixed(row[name])]
    turns = row.get("dialogue_turns")
    if isinstance(turns, Mapping):
        turns = [{"speaker": s, "utterance": u} for s, u in zip(turns["speaker"], turns["utterance"], strict=True)]
    if isinstance(turns, list):
        return [(_SPEAKERS.get(str(turn.get("speaker")), ""), str(turn.get("utterance") or "")) for turn in turns]
    if row.keys() >= {"input", "output"}:
        pairs = [[first(row, "instruction", "input"), first(row, "output")], *(row.get("history") or [])]
        if any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
            raise RowError("history-not-pairs", f"found {str(pairs)[:60]}")
        return [(who, str(t or "")) for pair in pairs for who, t in zip(("patient", "doctor"), pair, strict=True)]
    raise unknown_columns(row, "text blocks; lists of 病人：… and 医生：…; dialogue_turns; or input, output, history")


def _prefixed(texts: list[object]) -> Iterator[tuple[str, str]]:
    for text in map(str, texts):
        label = _LABEL.match(text)
        if not label:
            raise RowError("unknown-role", f"found {text[:30]!r}; expected 病人：… or 医生：…")
        yield _SPEAKERS[label[1]], text[label.end() :]


def _block(text: str) -> Dialogue:
    """The consultation of a text block."""
    said: Said = []
    faculty = ""
    _, *cells = _PART.split(f"\n{text}")
    parts, bodies = cells[::2], cells[1::2]
    if "Description" not in parts and "Dialogue" not in parts:
        raise RowError("not-a-consultation", f"found {text[:60]!r}; expected id=, Description, Dialogue")
    for part, body in zip(parts, bodies, strict=True):
        if part == "Doctor faculty":
            faculty += body
        elif part == "Dialogue":
            said += _turns(body)
        else:
            turn = ("patient" if part == "Description" else "doctor", "\n".join(map(str.strip, body[1:].split("\n"))))
            said += [turn] if turn not in said else []  # a form that is shown again
    prescribed = "药品" in text or "疾病诊断" in text
    told = _prescribed(said) if prescribed else [(who, form(words)) for who, words in said]
    return Dialogue(conversation(told), _department(faculty.strip().partition("\n")[0]))


def _turns(text: str) -> Said:
    """The turns of a dialogue; where upstream lost the first label, it was the doctor's."""
    cells = _ALONE.split(text)
    if len(cells) == 1:
        cells = _LEADING.split(text)
    said: Said = []
    for who, cell in zip(("医生", *cells[1::2]), cells[::2], strict=True):
        words = cell.strip()
        if "\n" in words:
            words = "\n".join(filter(None, map(str.strip, words.split("\n"))))
        if words:
            said.append((_SPEAKERS[who], words))
    return said


def _prescribed(said: Said) -> Iterator[tuple[str, str]]:
    """The turns with prescriptions in the doctor's mouth, and without what the platform wrote."""
    card = False
    for who, text in filter(lambda turn: turn[1], said):
        if card and who == "patient" and _DRUG.fullmatch(text):
            yield "doctor", text
            continue
        found = _PRESCRIPTION.search(text)
        card = found is not None
        yield who, form(text[: found.start()] if found else text)
        if found:
            yield "doctor", form(text[found.start() :])


def form(text: str) -> str:
    """A text without what the platform wrote into it, and the filled-in fields of the forms in it, a line each.

    >>> form("您好\\n疾病：\\n无\\n病情描述（主要症状）：咳嗽\\n过敏史：无（2020-03-23填写）\\n出院日期：2020-01-16")
    '您好\\n病情描述：咳嗽\\n过敏史：无'
    """
    if not _SPECIAL(text):  # as most are: a line of words
        return text.strip().lstrip("。，：:") if text[:1].isalnum() or _WORD(text) else ""
    fields = [(_FREE, "")]
    for line in _plain(text):
        found = _FIELD(line)
        if found and (name := found[1]) in _FIELDS:
            fields.append((_FIELDS[name], found[2]))
        else:
            name, told = fields[-1]
            fields[-1] = name, f"{told}\n{line}" if told else line
    kept: dict[str, None] = {}
    wishes: dict[str, None] = {}  # last, since what is said next goes on from there
    for name, told in fields:
        told = _told(name, told)  # noqa: PLW2901
        if not told:
            continue
        if name == _FREE:
            kept[told] = None
        elif name == _WISH:
            wishes[f"{name}：{told}"] = None
        elif name != "初步印象" or all(told != _told(*field) for field in fields if field[0] == "建议"):
            kept[f"{name}：{told}"] = None
    return "\n".join(kept | wishes)


def _told(name: str, text: str) -> str:
    """What stands in a field, "" where that is nothing."""
    if not name or not text:
        return ""
    text = text.removeprefix(f"{name}：").lstrip("。，：:")
    return "" if text in _NOTHING and name not in _ANSWERED else text


def _plain(text: str) -> list[str]:
    """The lines of a text but those of marks alone, without what the platform wrote; of a questionnaire its score."""
    if "）" in text or ")" in text:
        text = _WRITTEN.sub("", text)
    if "我已完成了" in text:
        text = _SCALE.sub(lambda found: f"{found[1]}{found[2]}" if found[2] else "", text)
    if _MARKED(text):
        text = _PLATFORM.sub("", text)
    return [line for line in map(str.strip, text.split("\n")) if line[:1].isalnum() or _WORD(line)]


@lru_cache(maxsize=1024)
def _department(line: str) -> str:
    """The department of the first hospital a doctor works at: hospitals and departments take turns on the line.

    >>> _department("莆田学院附属医院  消化内科  莆田市第一医院  内科"), _department("天坛医院 神经内科")
    ('消化内科', '神经内科')
    """
    cells = re.split(r"\s{2,}", line.strip())
    return cells[1] if len(cells) > 1 else line.strip().rpartition(" ")[2] if " " in line.strip() else ""


@cache
def _reader() -> Callable[[bytes, str], Many | None]:
    from chimed.sources.consultations import Forms, Reader  # noqa: PLC0415 - slow to import, and for builds alone

    marks = (*_PLATFORM_MARKS, "我已完成了", "药品", "疾病诊断")
    forms = Forms(marks, ("填写", "测量"), _SENT, _FIELDS, _NOTHING, _ANSWERED, last=_WISH, unless=("初步印象", "建议"))
    return Reader(forms, _department)


def blocks(text: bytes, name: str) -> Many | None:
    """The consultations of whole blocks at once, None where they must be parsed one by one.

    >>> text = "id=1\\n\\nDescription\\n疾病：\\n痤疮\\n\\nDialogue\\n病人：\\n怎么治？\\n医生：\\n先用阿达帕林。\\n"
    >>> blocks(text.encode(), "2010").columns[0][0][0]["content"].as_py()
    '疾病：痤疮\\n怎么治？'
    """
    return _reader()(text, name)


SOURCE = Source(
    name="meddialog",
    title="MedDialog",
    homepage="https://github.com/UCSD-AI4H/Medical-Dialogue-System",
    license="unknown",
    files={
        "**/*test*.json*": "test",
        "**/*valid*.json*": "validation",
        "**/*.json*": "train",
        "**/20??.txt": "train",  # a year a file
        "**/*_zh_*.txt": "train",
        "**/*Chinese*.txt": "train",
    },
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    text="blocks",
    opens=r"id=\d+",
    at_once=blocks,
    origin=Origin(
        where="Download the Chinese part of MedDialog by hand from the folder that the README of "
        "https://github.com/UCSD-AI4H/Medical-Dialogue-System links to; its zip files may stay packed",
    ),
)
