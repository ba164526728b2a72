"""What BM25 counts: the folded text of passages and queries, cut into characters and their pairs, or into words.

Chinese is written without blanks. Single characters together with pairs of neighbours find more than words of a
dictionary do (docs/benchmarks.md); words make a smaller index.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from qilin.errors import RunError

Words = Literal["bigrams", "rjieba"]
Tokenizer = Callable[[str], list[str]]

_HAN = "\u2e80-\u2fdf\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(f"[{_HAN}]+|[^ {_HAN}]+")
_FIRST_HAN = "\u2e80"


def joined(titles: pa.Array, texts: pa.Array) -> pa.Array:
    """Passages as they are indexed: the title on a line of its own, unless the text begins with it.

    >>> joined(pa.array(["百日咳", "感冒"]), pa.array(["百日咳多见于小儿。", "多喝水。"])).to_pylist()
    ['百日咳多见于小儿。', '感冒\\n多喝水。']
    """
    pairs = zip(titles.to_pylist(), texts.to_pylist(), strict=True)
    return pa.array((text if text.startswith(title) else f"{title}\n{text}" for title, text in pairs), pa.string())


def fold(texts: pa.Array) -> pa.Array:
    """Runs of letters, digits and Han characters between single blanks: width, case and script do not count.

    Traditional characters become simplified ones one by one: so passages and questions meet whatever their script is.

    >>> fold(pa.array(["高血壓，能吃党参吗？ ＨｂＡ１ｃ 6.5%"])).to_pylist()
    ['高血压 能吃党参吗 hba1c 6 5']
    """
    plain = pc.utf8_lower(pc.utf8_normalize(texts.cast(pa.string()), "NFKC"))
    pattern, table = _traditional()
    where = pc.match_substring_regex(plain, pattern)
    if pc.any(where).as_py():
        simple = pa.array((text.translate(table) for text in plain.filter(where).to_pylist()), pa.string())
        plain = pc.replace_with_mask(plain, where, simple)
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, r"[^\p{L}\p{N}]+", " "))


@cache
def _traditional() -> tuple[str, dict[int, str]]:
    """A pattern for the traditional characters that have a simplified one, and the table from one to the other."""
    import opencc

    characters = [chr(code) for code in range(0x3400, 0xA000)]
    simple = opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n")
    pairs = {one: other for one, other in zip(characters, simple, strict=True) if one != other and len(other) == 1}
    return f"[{''.join(pairs)}]", str.maketrans(pairs)


def tokenizer(words: Words) -> Tokenizer:
    """What cuts folded text into tokens: Han characters and their pairs with other runs whole, or rjieba's words.

    >>> tokenizer("bigrams")("血压高 hba1c")
    ['血', '压', '高', '血压', '压高', 'hba1c']
    """
    if words == "bigrams":
        return _grams
    try:
        import rjieba
    except ModuleNotFoundError as error:
        raise missing("rjieba") from error
    cut: Callable[[str], Iterable[str]] = rjieba.cut
    return lambda text: [word for word in cut(text) if word != " "]


def _grams(text: str) -> list[str]:
    tokens: list[str] = []
    for run in _RUN.findall(text):
        if run[0] < _FIRST_HAN:
            tokens.append(run)
        else:
            tokens += run
            tokens += map(str.__add__, run, run[1:])
    return tokens


def missing(package: str) -> RunError:
    """The error for a package of the extra `eval` that is not installed."""
    return RunError(f"this needs the package {package}, which is not installed: pip install 'chimed[eval]'")
