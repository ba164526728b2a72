"""What a push decides before it asks the Hub: the build, its licences, the card, the token."""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chimed.errors import BuildError
from chimed.publish.collection import collection_card
from chimed.publish.finished import finished
from chimed.publish.hub import Push, push, token_of
from chimed.publish.licences import REDISTRIBUTABLE, Licensed, check, licensed, terms

REPO = "someone/chimed"


class Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A build with two stages, of sources that chimed knows and of one that it does not."""
    splits = {"sft": ["train", "validation"], "eval": ["test"]}
    cmb = {"title": "CMB", "homepage": "https://cmb.example", "license": "Apache-2.0"}
    for stage, names in splits.items():
        folder = tmp_path / "out" / stage
        folder.mkdir(parents=True)
        files = {}
        for split in names:
            content = f"{stage} {split}".encode()
            (folder / f"{split}-00000-of-00001.parquet").write_bytes(content)
            files[f"{split}-00000-of-00001.parquet"] = hashlib.sha256(content).hexdigest()
        rows, own = dict.fromkeys(names, 1200), {"cmb": {names[0]: 1000}, "mine": {names[0]: 200}}
        manifest = {"stage": stage, "digest": stage * 10, "rows": rows, "sources": own, "files": files}
        manifest |= {"licences": {"cmb": cmb}, "languages": ["zh"]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "out"


def test_the_card_is_valid_and_lists_a_configuration_a_stage(built: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the hub extra: pip install -e '.[hub]'")
    stages = finished(built)
    text = collection_card(stages, licensed(stages), REPO)
    card = hub.DatasetCard(text)
    assert isinstance(card.data, hub.DatasetCardData)
    assert (card.data.license, card.data.license_name) == ("other", "mixed")
    assert card.data.size_categories == ["1K<n<10K"]
    assert (card.data.language, card.data.task_categories[0]) == (["zh"], "text-generation")
    sft = [{"split": split, "path": f"sft/{split}-*.parquet"} for split in ("train", "validation")]
    assert card.data.configs == [
        {"config_name": "sft", "data_files": sft},
        {"config_name": "eval", "data_files": [{"split": "test", "path": "eval/test-*.parquet"}]},
    ]
    assert "- **No right to pass these rows on was found** (mine)" in text
    assert "| sft | 1,200 | 1,200 |  | [sft](sft/README.md) | sftsftsftsft |" in text
    assert "| `mine` mine | 400 | unknown | no right to pass it on was found |" in text
    assert "| `cmb` [CMB](https://cmb.example) | 2,000 | Apache-2.0 | keep the licence and its notices |" in text


def test_names_and_licences_of_ones_own_sources_are_text_of_the_card(built: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the hub extra: pip install -e '.[hub]'")
    path = built / "sft" / "manifest.json"
    manifest = json.loads(path.read_text())
    hostile = "<img src=x>\n---\n| [a](javascript:alert(1)) \x1b[2J\u202e"
    manifest["licences"]["mine"] = {"title": hostile, "homepage": "javascript:alert(1)", "license": hostile}
    path.write_text(json.dumps(manifest))
    text = collection_card(finished(built), licensed(finished(built)), REPO)
    assert text.count("\n---\n") == 1
    assert not set("\x1b\u202e") & set(text)
    assert "<img" not in text
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    (line,) = [line for line in text.splitlines() if line.startswith("| `mine`")]
    assert line.replace("\\|", "").count("|") == 5


def test_licences_that_do_not_let_rows_be_passed_on_are_refused(built: Path) -> None:
    with pytest.raises(BuildError, match=r"do not allow it: unknown \(mine\); .* add --allow-licence unknown$"):
        push(Push(built, REPO), Silent())
    check(licensed(finished(built)), ["Unknown"])
    check(licensed(finished(built)), None)


def test_the_strictest_conditions_are_told_with_their_sources() -> None:
    asked = {"a": "MIT", "b": "CC-BY-NC-SA-4.0", "c": "CC-BY-ND-4.0", "d": "CC-BY-SA-4.0"}
    sources = [Licensed(name, name, "", text, 1, REDISTRIBUTABLE.get(text)) for name, text in asked.items()]
    assert [sentence.partition(")")[0] for sentence in terms(sources)] == [
        "**No right to pass these rows on was found** (c",
        "No commercial use (b",
        "Pass on under the same licence (b, d",
        "Name the source and its licence (b, d",
        "Keep the licence and its notices (a",
    ]
    check(sources, ["CC-BY-ND-4.0"])
    with pytest.raises(BuildError, match=r"CC-BY-ND-4\.0 \(c\); leave the sources out"):
        check(sources, ())


def test_a_folder_that_is_no_build_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"holds no stage with a manifest\.json; name the --out"):
        push(Push(tmp_path, REPO), Silent())
    with pytest.raises(BuildError, match=f"name the folder above: {built}"):
        push(Push(built / "sft", REPO), Silent())
    for repo in ("chimed", "../x", "a/b/c", "a/ b", "a/b\n"):
        with pytest.raises(BuildError, match="is no repository; name it as ORG/NAME"):
            push(Push(built, repo), Silent())


def test_only_what_the_build_wrote_is_pushed(built: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the hub extra: pip install -e '.[hub]'")
    shard = built / "eval" / "test-00000-of-00001.parquet"
    content = shard.read_bytes()
    shard.write_bytes(b"changed")
    with pytest.raises(BuildError, match=r"test-00000-of-00001\.parquet: was changed since it was built"):
        push(Push(built, REPO, allowed=None), Silent())
    shard.unlink()
    with pytest.raises(BuildError, match="is gone or a link"):
        push(Push(built, REPO, allowed=None), Silent())
    shard.symlink_to("/etc/passwd")
    with pytest.raises(BuildError, match="is gone or a link"):
        push(Push(built, REPO, allowed=None), Silent())
    shard.unlink()
    shard.write_bytes(content)
    manifest = built / "sft" / "manifest.json"
    for wrong in ('{"files": {"../../secret": ""}}', "[]", "{", '{"stage": "dpo"}'):
        manifest.write_text(wrong)
        with pytest.raises(BuildError, match="is no manifest of this stage"):
            push(Push(built, REPO, allowed=None), Silent())


def test_a_token_of_no_use_is_told_without_showing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    for content in ("hf_a b", "hf_a\nb", "hf_ä", ""):
        path.write_text(content)
        with pytest.raises(BuildError, match=r"holds a character that no token has|is empty") as caught:
            token_of(path)
        assert "hf_" not in str(caught.value)
        with pytest.raises(BuildError, match=r"holds a character that no token has|is empty"):
            push(Push(tmp_path, REPO, path), Silent())
    path.write_text("hf_abc\n")
    monkeypatch.setenv("HF_TOKEN", " hf_of_the_environment ")
    assert (token_of(path), token_of(None)) == ("hf_abc", "hf_of_the_environment")
    with pytest.raises(BuildError, match="cannot be read as text"):
        token_of(tmp_path / "none")
    monkeypatch.delenv("HF_TOKEN")
    assert token_of(None) == ""


def test_without_the_client_one_sentence_says_what_to_install(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BuildError, match=r"^chimed push needs huggingface_hub: pip install 'chimed\[hub\]'$"):
        push(Push(built, REPO, allowed=None), Silent())
