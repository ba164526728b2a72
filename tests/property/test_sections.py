"""Laws of cutting text into sections: nothing is invented, sizes hold, the order stays."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.sources.layout import paragraphs
from chimed.sources.sections import LONG, level_of, parted, sections

SENTENCE = st.text("发热咳嗽头痛应当休息多饮水及时就医", min_size=4, max_size=60).map(lambda text: f"{text}。")
HEADING = st.sampled_from(["第一章 总论", "第二节 诊断", "一、病因", "二、治疗", "（一）药物", "【预防】", "-3-", "12"])
# A heading that comes again and again is a page's running head, which is taken away: here each comes once.
LINES = st.lists(st.one_of(SENTENCE, SENTENCE, HEADING), max_size=40).map(
    lambda lines: [line for i, line in enumerate(lines) if line.endswith("。") or line not in lines[:i]]
)


@settings(deadline=None, max_examples=60)
@given(LINES)
def test_nothing_is_invented(lines: list[str]) -> None:
    given_characters = iter("\n".join(lines))
    kept = "".join(passage.text for passage in sections("\n".join(lines), "题目"))
    assert all(character in given_characters for character in kept if not character.isspace())


@settings(deadline=None, max_examples=60)
@given(LINES)
def test_sentences_are_kept_whole(lines: list[str]) -> None:
    kept = "".join(paragraphs("\n".join(lines)))
    assert all(line in kept for line in lines if line.endswith("。"))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(30, 900))
def test_long_sections_are_cut(paragraphs_: int, size: int) -> None:
    text = "\n".join(["一、治疗", *("休息。" * size for _ in range(paragraphs_))])
    found = sections(text)
    assert all(len(passage.text) <= LONG + LONG // 50 for passage in found)
    assert sum(passage.text.count("。") for passage in found) == size * paragraphs_


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=200))
def test_any_text_is_taken(text: str) -> None:
    sections(text, text[:10])
    for line in paragraphs(text):
        assert line
        level_of(line)


def test_numbered_chapters_end_a_reference_list() -> None:
    overview = (
        "本病是一种罕见的遗传性疾病，多在儿童时期起病，早期表现不典型，容易被误诊，需要结合基因检测结果综合判断。"
    )
    long = "患者出生时多无异常，随着年龄增长逐渐出现视力下降、肥胖和多指畸形，部分患者还有肾脏受累，应当定期随访。"
    lines = [
        "7.甲综合征",
        "概述",
        overview,
        "治疗",
        long,
        "参考文献",
        "[1] LEE A, KIM B. A syndrome. Lancet Neurol",
        "40",
    ]
    lines += ["8.Barde t 综合征", "概述", overview.replace("儿童", "成年"), "治疗", long.replace("肥胖", "消瘦")]
    found = sections("\n".join(lines), "罕见病指南")
    assert {p.title.split(" · ")[1] for p in found} == {"甲综合征", "Barde t 综合征"}
    assert not any("Lancet" in p.text for p in found)


@settings(deadline=None, max_examples=60)
@given(st.lists(SENTENCE, max_size=20).map("".join), st.integers(20, 200))
def test_parting_keeps_every_sentence_on_its_line(line: str, most: int) -> None:
    parts = parted([line, line], most)
    assert "".join(parts).replace("\n", "") == line * 2
    assert all(part.count("\n") <= 1 for part in parts)
    assert all(len(part) <= max(most, 62) + 1 for part in parts)


def test_chapters_are_never_joined() -> None:
    about = "起病较急，患者多有接触史，应当详细询问，并结合检查结果综合判断，避免误诊漏诊，必要时请专科会诊后再作处理。"
    lines = ["第一章 甲病", "一、概述", f"甲病{about}{about}", "二、预后", "甲病多数良好。", "三、诊疗流程图"]
    lines += ["第二章 乙病", "一、概述", f"乙病{about}{about}", "二、治疗", "乙病目前没有标准的治疗方案。"]
    found = sections("\n".join(lines), "某病诊疗规范")
    assert found and not any("甲病" in p.text and "乙病" in p.text for p in found)
    assert not any("流程图" in p.text for p in found)
    assert {p.title.split(" · ")[1] for p in found} == {"甲病", "乙病"}


def test_numbers_parted_by_thousands_become_whole_and_doses_stay_apart() -> None:
    text = "一、治疗\n发病率约为1/10 000，甲泼尼龙 1 000 mg/d，维生素 B1 100mg 每日一次，发表于文献[214-\n215]。"
    (found,) = sections(f"{text}\n{'应当定期随访，观察疗效与不良反应。' * 6}", "某病")
    assert all(part in found.text for part in ("1/10000，", "1000 mg/d", "B1 100mg"))
    assert "215]" not in found.text
