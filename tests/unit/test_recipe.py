"""The recipe: closed, every fault at once, and each option shows its effect on what a build leaves."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from chimed.build import Request, build
from chimed.errors import RecipeError, SourceError
from chimed.recipe import load_recipe
from chimed.sources import discover
from chimed.sources.spec import STAGES


class _Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


SYMPTOMS = ["头痛", "胸闷", "咳嗽", "腹泻", "失眠", "皮疹", "耳鸣", "腰酸", "盗汗", "便秘"]
ENDS = [
    "先观察两天再说",
    "明早空腹抽血化验",
    "去眼科看看眼底",
    "换一种降压药试试",
    "先停掉所有保健品",
    "每周游泳三次就好",
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A raw folder: `talks` with 300 training rows, 20 upstream validation rows; `again` with copies of some."""
    rows = []
    for n in range(320):
        a, b = SYMPTOMS[n % 10], SYMPTOMS[n // 10 % 10]
        ask = f"第{n}号病人{a}又{b}，已经{n}天了，{ENDS[n % 6]}行不行？"
        rows.append(
            {
                "q": ask,
                "a": f"{n}天的{a}要查{n * 7}项，{ENDS[n * 5 % 6]}，{b}则另外{ENDS[n // 6 % 6]}，{n * 13}小时后复查。",
            }
        )
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "raw" / "talks").mkdir(parents=True)
    (tmp_path / "raw" / "talks" / "train.jsonl").write_text("\n".join(lines[:300]), encoding="utf-8")
    (tmp_path / "raw" / "talks" / "valid.jsonl").write_text("\n".join(lines[300:]), encoding="utf-8")
    (tmp_path / "raw" / "again").mkdir()
    near = [line.replace("复查。", "复查一次。") for line in lines[:50]]
    (tmp_path / "raw" / "again" / "copies.jsonl").write_text("\n".join(near), encoding="utf-8")
    return tmp_path


FORM = "shape: dialogue, columns: {question: q, answer: a}"
TALKS = f'name: talks, files: {{"train*": train, "valid*": validation}}, {FORM}'
AGAIN = f'name: again, files: {{"*": train}}, {FORM}'


def _build(place: Path, text: str, *stages: str) -> Path:
    recipe = place / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    out = place / f"out-{len(list(place.iterdir()))}"
    build(Request(load_recipe(recipe), recipe, place / "raw", out, stages or ("sft",), 1), _Silent())
    return out


def _ids(out: Path, stage: str = "sft", split: str = "*") -> list[str]:
    paths = sorted((out / stage).glob(f"{split}-*.parquet"))
    return [name for path in paths for name in pq.read_table(path)["id"].to_pylist()]


def _verdicts(out: Path) -> Counter[tuple[str, str]]:
    rows = pq.read_table(out / "ledger.parquet").to_pylist()
    return Counter((row["source"], row["verdict"]) for row in rows)


def test_the_default_recipe_holds_every_source() -> None:
    loaded = load_recipe()
    assert {item.source.name for item in loaded.ingredients} == set(discover())


def test_every_fault_is_named_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("seedd: 1\nnear: 2\nrag_length: 1\nsources: [{nam: cmexam}, 3]\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    faults = "\n".join(caught.value.faults)
    for words in ("seedd: unknown key; did you mean 'seed'?", "near:", "rag_length:", "sources.0.nam", "sources.1"):
        assert words in faults


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{name: x, shape: dialogue}", "need `name`"),
        ('{name: x, shape: dialogue, files: {"*": train}, columns: {q: a}}', "a dialogue needs question, answer"),
        ("{name: cmexam, columns: {question: q}}", "need a `shape`"),
        ("{name: cmexam, license: MIT}", "need a `shape`"),
        ("{file: nowhere.py}", "no such source file"),
        ("{name: cmexam}, {name: cmexam}", "twice"),
        ("", "found none"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(tmp_path: Path, entry: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"sources: [{entry}]\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="bad") as caught:
        load_recipe(path)
    assert words in str(caught.value)


def test_rank_decides_which_copy_stays(place: Path) -> None:
    assert _verdicts(_build(place, f"sources: [{{{TALKS}}}, {{{AGAIN}}}]"))["again", "repeated"] == 50
    verdicts = _verdicts(_build(place, f"sources: [{{{AGAIN}}}, {{{TALKS}}}]"))
    assert verdicts["again", "repeated"] == 0
    assert verdicts["talks", "repeated"] == 50


def test_near_sets_the_similarity_of_copies(place: Path) -> None:
    out = _build(place, f"near: 1.0\nsources: [{{{TALKS}}}, {{{AGAIN}}}]")
    assert _verdicts(out)["again", "repeated"] == 0


def test_repeats_may_be_kept_to_see_what_they_do(place: Path) -> None:
    dropped = _build(place, f"sources: [{{{TALKS}}}, {{{AGAIN}}}]")
    kept = _build(place, f"repeats: keep\nsources: [{{{TALKS}}}, {{{AGAIN}}}]")
    before, after = _verdicts(dropped), _verdicts(kept)
    assert {verdict for _, verdict in after} == {"kept"}
    assert after["again", "kept"] == before["again", "kept"] + before["again", "repeated"]
    assert set(_ids(kept)) > set(_ids(dropped))
    card = (kept / "sft" / "README.md").read_text(encoding="utf-8")
    assert "the recipe keeps every row" in card
    assert "by MinHash" not in card


def test_share_takes_a_nested_part_and_cap_a_number(place: Path) -> None:
    half = set(_ids(_build(place, f"sources: [{{{TALKS}, share: 0.5}}]")))
    tenth = set(_ids(_build(place, f"sources: [{{{TALKS}, share: 0.1}}]")))
    assert 110 < len(half) < 190
    assert 10 < len(tenth) < 55
    assert tenth < half
    capped = _build(place, f"sources: [{{{TALKS}, cap: 17}}]")
    assert len(_ids(capped)) == 17
    assert _verdicts(capped)["talks", "kept"] == 320  # a cap is a matter of the stage, not of the corpus


def test_stages_say_where_rows_may_go(place: Path) -> None:
    out = _build(place, f"sources: [{{{TALKS}, stages: [cpt]}}]", "cpt", "sft")
    assert len(_ids(out, "cpt")) == 300
    assert not (out / "sft").exists()


def test_splits_turn_upstream_validation_into_training(place: Path) -> None:
    assert len(_ids(_build(place, f"sources: [{{{TALKS}}}]"))) == 300
    out = _build(place, f"sources: [{{{TALKS}, splits: {{validation: train}}}}]")
    assert len(_ids(out)) == 320


def test_skip_leaves_files_out_and_says_so(place: Path) -> None:
    recipe = place / "recipe.yaml"
    recipe.write_text(f'sources: [{{{TALKS}, skip: ["valid*"]}}]', encoding="utf-8")
    request = Request(load_recipe(recipe), recipe, place / "raw", place / "out", ("sft",), 1)
    outcome = build(request, _Silent())
    assert [(file.name, file.why) for file in outcome.unread["talks"]] == [("valid.jsonl", "skipped by the recipe")]
    assert _verdicts(place / "out")["talks", "kept"] == 300


def test_max_rejects_stops_a_build(place: Path) -> None:
    with (place / "raw" / "talks" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + '{"q": "x"}\n' * 60)
    with pytest.raises(Exception, match="60 of 380 rows were rejected, 1% are"):
        _build(place, f"sources: [{{{TALKS}, max_rejects: 0.01}}]")
    assert _verdicts(_build(place, f"sources: [{{{TALKS}, max_rejects: 0.5}}]"))["talks", "rejected"] == 60


def test_seed_changes_order_and_validation_its_size(place: Path) -> None:
    one, same, other = (_build(place, f"seed: {seed}\nsources: [{{{TALKS}}}]") for seed in (1, 1, 2))
    assert _ids(one) == _ids(same)
    assert _ids(one) != _ids(other)
    assert set(_ids(one)) == set(_ids(other))
    none = _build(place, f"validation: 0\nsources: [{{{TALKS}}}]")
    some = _build(place, f"validation: 0.3\nsources: [{{{TALKS}}}]")
    assert not _ids(none, split="validation")
    assert 50 < len(_ids(some, split="validation")) < 130


def test_near_copies_never_straddle_the_split(place: Path) -> None:
    # Copies at a similarity below the threshold of a cluster's ends: a chain of rows that differ little by little.
    chain, text = (
        [],
        "请问反复低烧三个月，做过胸片和血常规都没有发现问题，下一步应该查什么，需要住院吗，会不会是结核，家里老人也这样",
    )
    words = "体温多在午后升高，夜里出汗，体重掉了六斤，食欲也不好，吃过一周的消炎药不见好"
    for n in range(0, len(words), 4):
        chain.append(
            {
                "q": text + words[:n],
                "a": "先做结核菌素试验和胸部CT，排除结核和肿瘤，再查风湿免疫的指标，不要自行用激素。",
            }
        )
    (place / "raw" / "again" / "copies.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in chain), encoding="utf-8"
    )
    for seed in range(6):
        out = _build(place, f"seed: {seed}\nvalidation: 0.5\nnear: 0.86\nsources: [{{{AGAIN}}}]")
        kept = _ids(out)
        assert len(kept) >= 2
        assert len({split for split in ("train", "validation") if _ids(out, split=split)}) == 1


def test_script_and_rag_length(place: Path) -> None:
    (place / "raw" / "book").mkdir()
    text = "".join(f"高血壓患者應當減少食鹽的攝入，第{n}週的{a}要記下來。" for n, a in enumerate(SYMPTOMS * 4))
    (place / "raw" / "book" / "a.txt").write_text(text, encoding="utf-8")
    book = 'name: book, files: {"*": train}, shape: passage, text: file'

    def passages(options: str) -> list[dict[str, Any]]:
        out = _build(place, f"{options}\nsources: [{{{book}}}]", "rag")
        return [row for path in (out / "rag").glob("*.parquet") for row in pq.read_table(path).to_pylist()]

    assert "高血压患者应当" in passages("rag_length: 128")[0]["text"]
    assert "高血壓患者應當" in passages("script: as-is")[0]["text"]
    assert (
        max(len(row["text"]) for row in passages("rag_length: 128"))
        <= 128
        < max(len(row["text"]) for row in passages("rag_length: 512"))
    )


def test_a_source_file_of_ones_own(place: Path) -> None:
    (place / "mine.py").write_text(
        """
from chimed.sources.spec import Source, dialogue

SOURCE = Source(
    name="talks", title="My talks", homepage="", license="CC0-1.0", files={"train*": "train"},
    parse=dialogue(question="q", answer="a"), shapes=("dialogue",), stages=("sft",),
)
""",
        encoding="utf-8",
    )
    out = _build(place, "sources: [{file: mine.py}]")
    assert len(_ids(out)) == 300
    assert "CC0-1.0" in (out / "sft" / "README.md").read_text(encoding="utf-8")


def test_the_licence_of_ones_own_source_is_in_the_manifest(place: Path) -> None:
    said = {}
    for licence in ("", ", license: CC-BY-4.0"):
        out = _build(place, f"sources: [{{{TALKS}{licence}}}]")
        manifest = json.loads((out / "sft" / "manifest.json").read_text(encoding="utf-8"))
        said[manifest["licences"]["talks"]["license"]] = manifest["digest"]
    assert said.keys() == {"unknown", "CC-BY-4.0"}
    assert len(set(said.values())) == 2  # so that the card is written anew


def test_a_file_that_changes_while_it_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chimed import partition

    real = partition.many

    def touching(*arguments: Any) -> Any:
        for number, row in real(*arguments):
            if number == 5:
                with (place / "raw" / "talks" / "train.jsonl").open("a") as file:
                    file.write("\n{}")
            yield number, row

    monkeypatch.setattr(partition, "many", touching)
    with pytest.raises(SourceError, match="changed while"):
        _build(place, f"sources: [{{{TALKS}}}]")


def test_all_stages_are_known() -> None:
    assert set(STAGES) == {"cpt", "sft", "dpo", "eval", "rag"}
