"""Laws of cutting text into sections: nothing is invented, sizes hold, the order stays."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.sources.layout import paragraphs
from chimed.sources.sections import LONG, level_of, sections

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
