"""Modes, signatures, empty replies, intervals and length-matched comparison of open answers."""

import json
import re
from dataclasses import asdict

import pytest

from qilin.evaluate.answers import MODES, Mode, matched, score

pytest.importorskip("sacrebleu", reason="the extra eval is not installed")
pytest.importorskip("rouge_score", reason="the extra eval is not installed")
pytest.importorskip("rouge_chinese", reason="the extra eval is not installed")

REFERENCES = [
    "高血压患者应当低盐饮食，规律服药，定期监测血压。",
    "急性阑尾炎确诊后应尽早手术治疗。",
    "儿童发热首先应补充水分，体温超过38.5℃可口服对乙酰氨基酚。",
    "2型糖尿病的一线用药为二甲双胍。",
    "该病例考虑为缺铁性贫血，建议口服铁剂。",
]
REPLIES = [
    "高血压患者要低盐饮食，按时服药，经常监测血压。",
    "急性阑尾炎应尽早手术。",
    "儿童发热应多喝水，体温超过38.5℃可以口服退烧药。",
    "",
    "考虑为缺铁性贫血，可以口服铁剂治疗，注意复查血常规。",
]
LONG = [reply + "以上意见仅供参考，如有不适请及时到医院就诊。" if reply else "不清楚。" for reply in REPLIES]


@pytest.mark.parametrize("mode", MODES)
def test_a_perfect_reply_scores_full_marks(mode: Mode) -> None:
    found = score(mode, REFERENCES, REFERENCES, resamples=20)
    assert list(found.values.values()) == pytest.approx([100.0] * len(found.values), abs=1e-4)
    assert (found.n, found.empty, found.length_ratio) == (5, 0, 1.0)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_reply_scores_nothing_and_counts(mode: Mode) -> None:
    found, without = (
        score(mode, replies, REFERENCES, resamples=20) for replies in (REPLIES, [*REPLIES[:3], "错", *REPLIES[4:]])
    )
    assert found.empty == 1
    assert all(figures[3] == 0 for figures in found.items.values())
    assert all(len(figures) == found.n == 5 for figures in found.items.values())
    for metric in ("rouge-1", "rouge-2", "rouge-l"):
        assert found.values[metric] == pytest.approx(sum(found.items[metric]) / 5)
    assert found.values["bleu-4"] <= without.values["bleu-4"] + 1e-9
    assert score(mode, ["", " \n"], REFERENCES[:2], resamples=20).values == dict.fromkeys(found.values, 0.0)


@pytest.mark.parametrize("mode", MODES)
def test_the_signature_names_tools_and_settings(mode: Mode) -> None:
    first, second = (score(mode, replies, REFERENCES, resamples=5).signature for replies in (REPLIES, LONG))
    assert first == second
    for part in (r"order:", r"tok:", r"smooth:", r":\d+\.\d+"):
        assert re.search(part, first), first
    assert {"zh": "tok:zh|smooth:exp", "paper": "tok:jieba-", "llamafactory": "smooth:method3"}[mode] in first


def test_modes_do_not_agree() -> None:
    figures = [score(mode, REPLIES, REFERENCES, resamples=5).values["bleu-4"] for mode in MODES]
    assert len({round(figure) for figure in figures}) == 3
    assert len({score(mode, REPLIES, REFERENCES, resamples=5).signature for mode in MODES}) == 3


def test_intervals_are_seeded_and_hold_the_value() -> None:
    found = score("zh", REPLIES, REFERENCES, seed=7, resamples=200)
    assert found == score("zh", REPLIES, REFERENCES, seed=7, resamples=200)
    assert found.intervals != score("zh", REPLIES, REFERENCES, seed=8, resamples=200).intervals
    for metric, interval in found.intervals.items():
        assert interval.low < interval.value == found.values[metric] < interval.high
    assert json.loads(json.dumps(asdict(found)))["values"]["bleu-1"] == found.values["bleu-1"]
    assert score("zh", REPLIES[:1], REFERENCES[:1]).intervals == {}


@pytest.mark.parametrize(("replies", "references"), [([], []), (["a"], []), (["a"], [" "])])
def test_unusable_pairs_are_refused(replies: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError):
        score("zh", replies, references)


def test_a_long_sentence_without_end_can_be_scored() -> None:
    endless = "反复咳嗽" * 1500
    found = score("llamafactory", [endless], [REFERENCES[0]])
    assert found.values["rouge-1"] >= 0


def test_length_ratio_counts_characters() -> None:
    assert score("zh", ["一二 三四\n"], ["一二"]).length_ratio == 2.0


def test_equal_systems_do_not_differ() -> None:
    found = matched("zh", REPLIES, REPLIES, REFERENCES, resamples=20)
    for pairs in (found.everything, found.within, found.standardised):
        assert pairs is not None
        assert pairs.n == 5
        assert all(interval.value == interval.low == interval.high == 0 for interval in pairs.difference.values())
    assert found.overlap == 1.0


def test_only_replies_of_like_length_are_matched() -> None:
    near = ["低盐饮食，规律服药，监测血压啊。", *LONG[1:]]
    found = matched("zh", ["低盐饮食，规律服药，监测血压。", *REPLIES[1:]], near, REFERENCES, resamples=20)
    assert found.everything is not None
    assert found.everything.n == 5
    assert found.within is None, "one pair cannot be compared"
    two = matched(
        "zh",
        [*REPLIES, "一二三四五六七八九十"],
        [*REPLIES[:1], *LONG[1:], "一二三四五六七八九"],
        [*REFERENCES, "一二"],
        resamples=20,
    )
    assert two.within is not None
    assert two.within.n == 2, "10 and 9 characters are within a tenth, 10 and 8 are not"


def test_what_length_alone_gains_is_taken_out() -> None:
    """The second system says a prefix of the reference as the first does, but more of it: all it has is length."""
    references = [
        f"第{number}例患者应当卧床休息，清淡饮食，多饮温水，按时服药，定期复查血常规与肝肾功能。" * 2
        for number in range(60)
    ]
    first = [text[: len(text) * (2 + number % 5) // 10] for number, text in enumerate(references)]
    second = [text[: len(text) * (4 + number % 5) // 10] for number, text in enumerate(references)]
    found = matched("zh", first, second, references, resamples=50)
    assert found.everything is not None
    assert found.standardised is not None
    assert found.everything.difference["rouge-1"].low > 10
    assert abs(found.standardised.difference["rouge-1"].value) < found.everything.difference["rouge-1"].value / 4
    assert 0 < found.overlap <= 1
