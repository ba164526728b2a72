"""What the platform wrote into consultations goes, and looking for it first by marks misses nothing."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimed.sources import meddialog
from chimed.sources.meddialog import _PLATFORM, _PLATFORM_MARKS, _prescribed, form

PHRASES = [
    "感谢您的信任，病情资料我已详细阅读。根据您现有的资料，建议：",
    "您好，我已仔细研读了您的资料，很高兴为您提供医学指导帮助！",
    "你好！我已经仔细研读了您的资料，很高兴为您提供医学指导帮助！",
    "医生使用隐私电话功能与患者通话：",
    "医生给患者打电话患者未接听",
    "生给患者打电话患者未接听:",
    "医生已经通过语音回答了您的问题，请及时收听。",
    "医生给您发来一个提醒：",
    "请尽快填表，我需要了解你的情况：《焦虑自评量表》",
    "您好！我现在正忙，会尽快答复您的问题，请等候！还有一些细节需要问你你只要注意回答就可以啦！",
    "还有一些细节需要问你 你只要注意回答就可以啦！或你注意接听010开头的电话。好大夫在线电话）",
    "如果您觉得我回答对您有帮助请给我好评",
    "请您对我的服务提出宝贵的建议或意见！",
    "没有其他问题，系统将在随后关闭这个问题。",
    "如果有需要，可以点我头像关注我或者搜索我的名字就可以找到我，随时跟我对话向我咨询。",
    "病历资料仅主诊医生和患者本人可见",
    "资料照片隐私内容，仅医生及患者本人可见",
    "真情寄语：",
    "开药需求",
    "有新资料上传",
    "详细请参见问诊记录。",
    "《糖尿病患者怎样控制饮食》：",
    "当然了，如果对我的回答感到满意，请给予好评！谢谢！",
    "如果您觉得我有帮助到您，希望您给我一个好评与暖心推荐！",
    "麻烦打个好评下，谢谢",
    "（医生留言）您好，很高兴成为您的私人医生，通过这里可以长期联系到我。",
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_holds_a_mark_and_goes(phrase: str) -> None:
    assert _PLATFORM.sub("", phrase).strip() == ""
    assert any(mark in phrase for mark in _PLATFORM_MARKS)
    assert form(phrase) == ""
    assert form(f"先吃药。\n{phrase}\n") == "先吃药。"


def test_a_text_without_fields_stays_line_by_line() -> None:
    assert form(" 孩子发烧三天 \n\n……\n体温39度，怎么办？") == "孩子发烧三天\n体温39度，怎么办？"
    assert form("，。您好") == "您好"
    assert form("free：咳嗽") == "free：咳嗽"


WORDS = [
    "孩子发烧",
    "39度",
    "+",
    "a",
    "？",
    "，",
    "。",
    " ",
    "\u3000",
    "\n",
    ":",
    "：",
    "无",
    "疾病：",
    "free",
    "（2020-03-19填写）",
]
TEXTS = st.lists(st.sampled_from([*WORDS, *PHRASES]), max_size=6).map("".join)


@given(TEXTS)
def test_a_line_of_words_would_come_the_same_out_of_a_search_for_forms(text: str) -> None:
    with patch.object(meddialog, "_SPECIAL", return_value=True):
        searched = form(text)
    assert form(text) == searched


@given(st.lists(st.tuples(st.sampled_from(["patient", "doctor"]), TEXTS)))
def test_turns_without_a_prescription_are_their_forms(said: list[tuple[str, str]]) -> None:
    assert list(_prescribed(said)) == [(who, form(text)) for who, text in said if text]


@given(st.lists(st.sampled_from(["病人：", "医生:", " 患者： ", "咳嗽", "", " 多久了？", "医生：先吃药"]), max_size=8))
def test_turns_are_those_found_line_by_line(lines: list[str]) -> None:
    stripped = [line.strip() for line in lines]
    alone = any(meddialog._LABEL.fullmatch(line) for line in stripped)
    said: list[tuple[str, list[str]]] = [("doctor", [])]
    for line in stripped:
        label = meddialog._LABEL.fullmatch(line) if alone else meddialog._LABEL.match(line)
        if label:
            said.append((meddialog._SPEAKERS[label[1]], [line[label.end() :]]))
        else:
            said[-1][1].append(line)
    joined = [(who, "\n".join(filter(None, held))) for who, held in said]
    expected = [(who, words) for who, words in joined if words]
    assert meddialog._turns("".join(f"\n{line}" for line in lines)) == expected
