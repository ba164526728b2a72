"""Every reason that a reject can have is known in words."""

import ast
from collections.abc import Iterator
from pathlib import Path

import chimed
from chimed.quality import REASONS
from chimed.reasons import MEANINGS, PARSING, READING, meaning

CODE = sorted(Path(chimed.__file__).parent.rglob("*.py"))


def slugs(expression: ast.expr) -> Iterator[str]:
    """The reasons that the first argument of a RowError can be; "*" stands for what is known only when it runs."""
    match expression:
        case ast.Constant(value=str() as slug):
            yield slug
        case ast.IfExp():
            yield from slugs(expression.body)
            yield from slugs(expression.orelse)
        case ast.JoinedStr():
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in expression.values)
        case ast.Name(id="reason"):  # a verdict's
            yield from REASONS
        case _:
            raise AssertionError(f"{ast.unparse(expression)}: write the reason where it is raised")


RAISED = {
    slug: path.name
    for path in CODE
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RowError"
    for slug in slugs(node.args[0])
}


def test_every_reason_that_is_raised_has_words() -> None:
    forms = {"no-*": {"no-column"}, "broken-*": {"broken-parquet", "broken-arrow", "broken-arrow-stream"}}
    raised = {one for slug in RAISED for one in forms.get(slug, {slug})}
    wordless = {slug: RAISED[slug] for slug in raised - MEANINGS.keys() - {"no-column"}}
    assert not wordless, "say in chimed/reasons.py what it means"
    assert meaning("no-column") == "The row has nothing under column."


def test_no_reason_has_words_twice_or_for_nothing() -> None:
    assert len(MEANINGS) == len(READING) + len(PARSING) + len(REASONS)
    raised = RAISED.keys() | {"broken-parquet", "broken-arrow", "broken-arrow-stream"}
    assert not MEANINGS.keys() - raised


def test_words_are_one_sentence() -> None:
    assert all(words.endswith(".") and "\n" not in words for words in MEANINGS.values())


def test_a_reason_of_somebody_elses_source_is_not_left_without_words() -> None:
    assert meaning("too-blue") == "The parser of the source could not use the row."
