"""Laws of the text steps: done twice is done once, and how a column is cut into batches does not matter."""

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given, settings

from chimed.text import alike, clean, fold, han_share, language, mask

PIECES = [
    *"头痛高血压氣壓癥噁瞤著乾",
    *" \u3000\t\n\r\u2028\u200b\ufffd\u00ad\x00\x1e。，、；：！？…—～.,;:!?-()（）[]【】《》<>&;#`\\/@",
    *"ABab019ＡＢ１９％＜＞＆½²①℃Ⅱ㎎㎡ﬁ々のがé\u0301\u0300가ÂÌ¶¹×\ue000\ufdd0😀𠮷𥆧\U000e0041",
    *(
        "&nbsp;",
        "&lt;",
        "&amp;",
        "&#60;",
        "&#30;",
        "&#xFFFD;",
        "amp;",
        "<br>",
        "<p>",
        "</p>",
        "<b>",
        "</b>",
        "<sup>",
        "</sup>",
    ),
    *(
        "<sub>",
        "[sub]",
        "<script>",
        "</script>",
        "<!--",
        "-->",
        "\\n",
        "\\t",
        "\\u3000",
        "\\u0004",
        "......",
        "。。",
        "，，",
        "\r\n",
    ),
    *(
        "[详细]",
        "查看更多",
        "点击查看大图",
        "，无",
        "医学教育网搜集整理",
        "```",
        ";\n    x",
        "{\n\t",
        "头 痛 发 热",
        "乾燥",
        "癥瘕",
        "噁心",
    ),
    *(
        "13812345678",
        "010-12345678",
        "微信：",
        "QQ",
        "电话",
        "a@b.com",
        "http://x.cn/",
        "www.a.com",
        "[手机号]",
        "[电话号码]",
    ),
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=20)
COLUMN = st.lists(TEXT, max_size=8)


@settings(deadline=None, max_examples=400)
@given(COLUMN, st.sampled_from(["simplified", "as-is"]))
def test_clean_twice_is_clean_once(texts: list[str], script: str) -> None:
    once = clean(pa.array(texts, pa.string()), script=script)  # type: ignore[arg-type]
    again = clean(once, script=script)  # type: ignore[arg-type]
    assert again.to_pylist() == once.to_pylist()


@settings(deadline=None, max_examples=200)
@given(COLUMN)
def test_fold_twice_is_fold_once(texts: list[str]) -> None:
    once = fold(pa.array(texts, pa.string()))
    assert fold(once).to_pylist() == once.to_pylist()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(TEXT, TEXT) | TEXT.map(lambda text: (text, f"，{text.upper()}！")), max_size=8))
def test_alike_is_what_folds_to_the_same(pairs: list[tuple[str, str]]) -> None:
    one, other = (pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1))
    keys = zip(fold(one).to_pylist(), fold(other).to_pylist(), strict=True)
    assert alike(one, other).tolist() == [a == b != "" for a, b in keys]


@settings(deadline=None, max_examples=300)
@given(COLUMN)
def test_mask_twice_is_mask_once(texts: list[str]) -> None:
    once, counts = mask(pa.array(texts, pa.string()))
    again, none = mask(once)
    assert again.to_pylist() == once.to_pylist()
    assert not any(count.to_numpy().any() for count in none.values())
    changed = [before != after for before, after in zip(texts, once.to_pylist(), strict=True)]
    assert [sum(row) > 0 for row in zip(*(c.to_pylist() for c in counts.values()), strict=True)] == changed


@settings(deadline=None, max_examples=150)
@given(COLUMN, st.integers(0, 8))
def test_batch_cuts_do_not_matter(texts: list[str], cut: int) -> None:
    whole = pa.array(texts, pa.string())
    for step in (clean, fold, han_share, language, lambda texts: mask(texts)[0]):
        parts = [step(whole.slice(0, cut)), step(whole.slice(min(cut, len(whole))))]
        assert pa.concat_arrays(parts).equals(step(whole))


@settings(deadline=None, max_examples=200)
@given(COLUMN)
def test_results_are_valid_and_shares_are_shares(texts: list[str]) -> None:
    column = pa.array(texts, pa.string())
    for result in (clean(column), fold(column), mask(column)[0]):
        result.validate(full=True)
        assert len(result) == len(column)
    assert all(0 <= share <= 1 for share in han_share(column).to_pylist())


@settings(deadline=None, max_examples=200)
@given(COLUMN)
def test_clean_leaves_no_dirt(texts: list[str]) -> None:
    for text in clean(pa.array(texts, pa.string())).to_pylist():
        assert not set(text) & set("\r\x00\x1e\u200b\u00ad\ufffd\u2028")
        if "`" not in text and ";\n" not in text and "{\n" not in text and "):\n" not in text:
            assert text == text.strip() and "\n\n\n" not in text and "  " not in text and "。。" not in text
