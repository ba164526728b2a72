"""Cards, plots and token counts on stages written by hand: hostile rows and names, licences, tokenizers, no extras."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from chimed import engine
from chimed.errors import BuildError, RecipeError
from chimed.ledger import LEDGER, VERDICTS
from chimed.publish import describe, tokens
from chimed.publish.card import card, front, licence
from chimed.publish.finished import Finished
from chimed.publish.markdown import code, example, table, words
from chimed.publish.statistics import batches, tally
from chimed.recipe import Loaded, load_recipe
from chimed.stages import COLUMNS, measure

PAGE = MarkdownIt("commonmark", {"html": True}).enable("table")
HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "```\n---\nlicense: mit\n---\n# 标题\n| a | b |\n|---|---|",
    "![图](https://rows.invalid/y) [点这里](javascript:alert(1)) <https://rows.invalid>",
    "\x1b[31m红\x1b[0m\x07\x9b2J\x00\r",
    "\u202e倒着写\u2066\u200f\u200b\u2028新行",
    "长" * 1_000_000,
    "a|b`c`*d*_e_$f$~g~\\",
]


class Silent:
    """Progress that nobody watches."""

    def step(self, name: str, total: int) -> Any:
        return lambda done: None


def stage(out: Path, texts: dict[str, str], licences: dict[str, dict[str, str]] | None = None) -> Finished:
    """The stage cpt of a build with these texts by id, of which each second one was rejected, repeated or leaked."""
    folder = out / "cpt"
    folder.mkdir(parents=True)
    names = [name.partition("/")[0] for name in texts]
    rows = pa.table([list(texts), names, list(texts.values())], schema=COLUMNS["cpt"])
    pq.write_table(rows, folder / "train-00000-of-00001.parquet", row_group_size=3)
    cells, counts = [], {}
    for name, source in zip(texts, names, strict=True):
        cells += [(name, source, "f", "kept", None, None, None), (f"{name}x", source, "f", "rejected", name, None, "")]
        cells += [(f"{name}y", source, "f", "repeated", None, name, "similarity 1.000")]
        cells += [(f"{name}z", source, "f", "leaked", None, f"{source}/set#1", "share 0.9")]
        counts[source] = {"f": {"read": 0, **dict.fromkeys(VERDICTS, 0)}}
    for _, source, file, verdict, *_ in cells:
        counts[source][file]["read"] += 1
        counts[source][file][verdict] += 1
    ledger = pa.Table.from_arrays([pa.array(own, pa.string()) for own in zip(*cells, strict=True)], schema=LEDGER)
    pq.write_table(ledger, out / "ledger.parquet")
    manifest = {
        "stage": "cpt", "digest": "0" * 64, "recipe_digest": "1" * 64, "versions": {"chimed": "0"}, "pairs": {},
        "recipe": load_recipe().recipe.model_dump(mode="json"), "rows": {"train": len(texts)}, "commit": "",
        "sources": {name: {"train": names.count(name)} for name in sorted(set(names))}, "counts": counts, "raw_mb": 1,
        "files": {"train-00000-of-00001.parquet": ""}, "licences": licences or {}, "masked": {"url": 3},
    }  # fmt: skip
    return Finished("cpt", folder, manifest)


def described(found: Finished, loaded: Loaded | None = None) -> Finished:
    """The stage with its card, as a build leaves it."""
    counted = tally(found.folder.parent / "ledger.parquet")
    measured = [(split, measure(batch)) for split, batch in batches(found)]
    told = describe.describe(found, measured, loaded or load_recipe(), counted, engine.start(1), Silent())
    manifest = {**found.manifest, **told, "files": {path.name: "" for path in found.folder.iterdir()}}
    (found.folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return Finished(found.stage, found.folder, manifest)


def tags(page: str) -> set[str]:
    return set(re.findall(r"<(\w+)", PAGE.render(page)))


@pytest.fixture
def hostile(tmp_path: Path) -> Finished:
    texts = {f"b<i>|`{number}{text[:40]}/{text[:60]}#1": text for number, text in enumerate(HOSTILE)}
    named = {
        name.partition("/")[0]: {
            "title": text[:200],
            "homepage": f"https://x.invalid/) {text[:9]}",
            "license": text[:99],
        }
        for name, text in zip(texts, HOSTILE, strict=True)
    }
    return described(stage(tmp_path / "out", texts, named))


def test_hostile_rows_and_names_are_text(hostile: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimed.publish.card.EXAMPLES", len(HOSTILE))
    text = card(hostile)
    _, matter, body = text.split("---\n", 2)
    allowed = {"h1", "h2", "p", "strong", "code", "pre", "ul", "ol", "li", "blockquote", "em"}
    assert tags(body) <= allowed | {"table", "thead", "tbody", "tr", "th", "td"}
    plain = set(re.findall(r"<h\d>(.*?)</h\d>", PAGE.render(body)))
    assert {"Sources and licences", "Size", "How it was made", "Examples", "Known limits", "Uses"} <= plain
    assert len(plain) == 9
    assert "license: other\n" in matter
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]", text)
    assert "(1,000,000 characters)" in text
    assert len(text.encode()) < 60_000
    assert tags(str(licence(hostile))) <= allowed | {"table", "thead", "tbody", "tr", "th", "td"}


@settings(deadline=None, max_examples=150)
@given(st.text())
def test_any_data_stays_in_its_cell(text: str) -> None:
    page = "\n".join(table(["a", "b"], [[words(text), code(text)], ["x", "y"]], left=2))
    html = PAGE.render(page)
    assert html.count("<tr>") == 3
    assert html.count("<td>") == 4
    assert tags(page) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}


@settings(deadline=None, max_examples=150)
@given(st.text(), st.lists(st.text(), max_size=9))
def test_any_row_stays_in_its_block(text: str, more: list[str]) -> None:
    page = PAGE.render("\n".join([*example({"id": text, "options": more, "messages": [{"content": text}]}), "# end"]))
    assert re.fullmatch(r"<pre><code[^>]*>[^<]*</code></pre>\n<h1>end</h1>\n", page)


def licensed(*names: str) -> dict[str, dict[str, str]]:
    return {f"s{place}": {"title": "t", "homepage": "", "license": name} for place, name in enumerate(names)}


@pytest.mark.parametrize(
    ("licences", "matter", "words"),
    [
        (("MIT",), {"license": "mit"}, ["commercially? As a whole yes", "passed on? As a whole yes"]),
        (("MIT", "CC-BY-4.0"), {"license": ["cc-by-4.0", "mit"]}, ["commercially? As a whole yes"]),
        (
            ("MIT", "CC-BY-NC-4.0"),
            {"license": ["cc-by-nc-4.0", "mit"]},
            ["As a whole **no**: forbidden by the licence of `s1` (CC-BY-NC-4.0)", "passed on? As a whole yes"],
        ),
        (
            ("MIT", "unknown", "academic research"),
            {"license": "other", "license_name": "mixed", "license_link": "LICENSE.md"},
            ["passed on? As a whole **no**", "for `s1`, `s2`", "forbidden by the licence of `s2` (academic research)"],
        ),
    ],
)  # fmt: skip
def test_the_strictest_licence_decides(
    tmp_path: Path, licences: tuple[str, ...], matter: dict[str, Any], words: list[str]
) -> None:
    names = licensed(*licences)
    found = described(stage(tmp_path / "out", {f"{name}/f#1": "高血压患者应当少吃盐。" for name in names}, names))
    told = front(found)
    assert {name: told[name] for name in told if name.startswith("license")} == matter
    text = card(found)
    for line in words:
        assert line in text
    assert (found.folder / "LICENSE.md").exists() == (matter["license"] == "other")


def test_examples_are_of_sources_that_may_be_passed_on(tmp_path: Path) -> None:
    names = licensed("unknown", "MIT", "unknown")
    found = described(stage(tmp_path / "a", {f"{name}/f#1": "少吃盐。" for name in names}, names))
    assert re.findall(r'"id": "(s\d)', card(found)) == ["s1"]
    assert "rows are shown of sources that may be passed on" in card(found)
    names = licensed("unknown", "unknown")
    found = described(stage(tmp_path / "b", {f"{name}/f#1": "少吃盐。" for name in names}, names))
    assert re.findall(r'"id": "(s\d)', card(found)) == ["s0", "s1"]


def test_english_is_named_where_there_is_some(tmp_path: Path) -> None:
    texts = {"s/f#1": "高血压 and salt", "s/f#2": "Salt raises blood pressure."}
    assert front(described(stage(tmp_path / "a", texts)))["language"] == ["zh", "en"]
    assert front(described(stage(tmp_path / "b", {"s/f#1": "高血压 and salt"})))["language"] == ["zh"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A tokenizer.json for which each character is a token, and which would cut at two of them and add one."""
    tokenizers = pytest.importorskip("tokenizers")
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "[END]": 1}, unk_token="[UNK]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    own.post_processor = tokenizers.processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", 1)])
    own.enable_truncation(2)
    own.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    own.save(str(path))
    return path


def recipe(folder: Path, name: str) -> Loaded:
    (folder / "recipe.yaml").write_text(f"tokenizer: {name}\nsources: [cmexam]\n", encoding="utf-8")
    return load_recipe(folder / "recipe.yaml")


def test_tokens_are_those_of_the_recipes_tokenizer(tmp_path: Path, tokenizer: Path) -> None:
    texts = {f"s{number % 3}/f#{number}": "高血压患者少吃盐"[: number % 8 + 1] for number in range(40)}
    found = described(stage(tmp_path / "out", texts), recipe(tmp_path, "tokenizer.json"))
    size = found.manifest["size"]
    assert size["tokens"] == size["characters"] == sum(map(len, texts.values()))
    assert all(row["tokens"] == row["characters"] for row in size["sources"])
    text = card(found)
    assert f"{size['characters']:,} characters, {size['tokens']:,} tokens" in text
    assert "those of `tokenizer.json`" in text
    assert "characters only" not in text
    plain = card(described(stage(tmp_path / "plain", texts)))
    assert "characters only" in plain
    assert "tokens" not in plain


def test_workers_count_the_same_tokens(tmp_path: Path, tokenizer: Path) -> None:
    texts = {f"s{number % 3}/f#{number}": "高血压患者少吃盐"[: number % 8 + 1] for number in range(40)}
    found = stage(tmp_path / "out", texts)
    alone = tokens.tokens(found, tokenizer, engine.start(1), Silent())
    with engine.start(2) as pool:
        assert tokens.tokens(found, tokenizer, pool, Silent()) == alone


def test_the_recipe_of_the_page_names_a_tokenizer(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "cards.md").read_text(encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml").recipe.tokenizer == "Qwen/Qwen3-0.6B@main"


def test_a_tokenizer_is_part_of_the_digest(tmp_path: Path, tokenizer: Path) -> None:
    before = recipe(tmp_path, "tokenizer.json").digest
    tokenizer.write_text(tokenizer.read_text().replace("50", "51"))
    assert recipe(tmp_path, "tokenizer.json").digest != before


@pytest.mark.parametrize(
    ("name", "told"),
    [("gone.json", "no such file"), ("Qwen", "ORG/NAME"), ("../../etc/passwd", "ORG/NAME"), ("[a]", "valid string")],
)
def test_a_tokenizer_that_cannot_be_is_a_fault_of_the_recipe(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe(tmp_path, name)


def test_a_tokenizer_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    found = stage(tmp_path / "out", {"s/f#1": "少吃盐。"})
    with pytest.raises(BuildError, match="is no tokenizer"):
        described(found, recipe(tmp_path, "tokenizer.json"))
    hub = pytest.importorskip("huggingface_hub")

    def refused(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "hf_hub_download", refused)
    with pytest.raises(BuildError, match=r"Qwen/Qwen3-0\.6B: cannot be got from the Hub \(no route to host\)"):
        described(found, recipe(tmp_path, "Qwen/Qwen3-0.6B"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BuildError, match=r"pip install 'chimed\[cards\]'"):
        described(found, recipe(tmp_path, "tokenizer.json"))


def test_a_tokenizer_of_the_hub_is_fetched_by_name_and_revision(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(*arguments: object, **named: object) -> str:
        asked.append((*arguments, named["revision"]))
        return str(tokenizer)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    for number, name in enumerate(("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B@v1")):
        found = described(stage(tmp_path / str(number), {"s/f#1": "少吃盐。"}), recipe(tmp_path, name))
        assert found.manifest["tokenizer"]["name"] == name
        assert found.manifest["size"]["tokens"] == 4
    assert asked == [("Qwen/Qwen3-0.6B", "tokenizer.json", None), ("Qwen/Qwen3-0.6B", "tokenizer.json", "v1")]


def test_plots_are_the_same_bytes_whatever_the_settings(hostile: Finished) -> None:
    mpl = pytest.importorskip("matplotlib")
    from chimed.publish.plots import draw

    first = draw(hostile)
    with mpl.rc_context({"font.size": 30, "savefig.facecolor": "red"}):
        assert draw(hostile) == first
    assert all(data.startswith(b"\x89PNG") and b"Software" not in data for data in first.values())


def test_without_matplotlib_a_card_has_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = described(stage(tmp_path / "out", {"s/f#1": "少吃盐。"}))
    before = (found.folder / "README.md").read_bytes()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert describe.refresh(tmp_path / "out")[0]["plots"] == []
    assert (found.folder / "README.md").read_bytes() == before


def test_a_card_that_was_lost_or_edited_is_made_anew(tmp_path: Path) -> None:
    found = described(stage(tmp_path / "out", {"s/f#1": "少吃盐。"}))
    describe.refresh(tmp_path / "out")
    text = (found.folder / "README.md").read_bytes()
    (found.folder / "README.md").write_text("mine")
    (found.folder / "LICENSE.md").write_text("mine")
    describe.refresh(tmp_path / "out" / "cpt")
    assert (found.folder / "README.md").read_bytes() == text
    assert "mine" not in (found.folder / "LICENSE.md").read_text(encoding="utf-8")


def test_a_build_without_the_figures_of_a_card_is_refused(tmp_path: Path) -> None:
    found = described(stage(tmp_path / "out", {"s/f#1": "少吃盐。"}))
    manifest = {name: value for name, value in found.manifest.items() if name != "size"}
    (found.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BuildError, match="says nothing of size"):
        describe.refresh(tmp_path / "out")
