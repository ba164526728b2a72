"""Exports: every format reads back as the rows of the build, whatever characters stand in them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.errors import BuildError
from chimed.publish.export import _BREAKS, FORMATS, _quoted, export
from chimed.records import Passage
from chimed.sources.chimed_released import SOURCE
from chimed.sources.readers import find, rows, slices
from chimed.stages import COLUMNS

USER, REPLY = {"role": "user"}, {"role": "assistant"}
ODD = '他说："疼\\痛"\r\n\t第二行\x01\x1f\u2028\x85👩‍⚕️'
ROWS: dict[str, list[dict[str, Any]]] = {
    "cpt": [
        {"id": "a/1", "source": "a", "text": "失眠\n要规律作息。\n\n少喝咖啡。"},
        {"id": "a/2", "source": "a", "text": f"{ODD} "},
    ],
    "sft": [
        {
            "id": "a/3",
            "source": "a",
            "messages": [
                {"role": "system", "content": "你是医生。"},
                {**USER, "content": "牙疼怎么办？"},
                {**REPLY, "content": ODD},
                {**USER, "content": "多久好？"},
                {**REPLY, "content": "三天。"},
            ],
        },
        {"id": "a/4", "source": "a", "messages": [{**USER, "content": "咳嗽？"}, {**REPLY, "content": "多喝水。"}]},
    ],
    "dpo": [
        {
            "id": f"a/{number}",
            "source": "a",
            "prompt": [{**USER, "content": f"发热{number}怎么办？"}],
            "chosen": [{**REPLY, "content": f"测体温。{ODD}"}],
            "rejected": [{**REPLY, "content": "不用管。"}],
            "kind": "given",
        }
        for number in range(3000)  # more than a batch
    ],
    "rag": [{"id": "a/9", "source": "a", "title": "失眠", "text": "失眠。", "part": 0}],
}


def stage(out: Path, name: Any, content: dict[str, list[dict[str, Any]]]) -> None:
    """A finished stage of these rows by split, in as many shards as there are rows, two at most."""
    folder = out / name
    folder.mkdir(parents=True)
    files = {}
    for split, own in content.items():
        cut = max(1, len(own) // 2)
        for number, part in enumerate([own[:cut], own[cut:]]):
            file = f"{split}-{number:05d}-of-00002.parquet"
            pq.write_table(pa.Table.from_pylist(part, COLUMNS[name]), folder / file)
            files[file] = ""
    manifest = {"stage": name, "digest": f"of {name}", "rows": {s: len(r) for s, r in content.items()}}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sources": {}, "files": files}))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "out"
    for name, own in ROWS.items():
        held = {"validation": own[:1]} if name == "sft" else {}
        stage(folder, name, {"train": own, **held})
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def column(name: str, key: str) -> list[Any]:
    return [row[key] for row in ROWS[name]]


def spaced(text: str) -> str:
    """A text as one line, the slow way."""
    for mark in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029":
        text = text.replace(mark, "\n")
    return " ".join(part.strip(" \t") for part in text.split("\n") if part.strip(" \t"))


def test_released_is_read_by_the_source_of_the_released_files(out: Path, tmp_path: Path) -> None:
    done = export(out, "released", tmp_path / SOURCE.name)
    assert done.rows == {"cpt.txt": 2, "sft.jsonl": 2, "sft-validation.jsonl": 1, "dpo.json": 3000}
    assert done.left_out == ("rag",)
    raw, _ = find(SOURCE, tmp_path)
    bodies: dict[str, list[Any]] = {}
    for file in raw:
        for part in slices(SOURCE, file):
            for _, row in rows(SOURCE, part):
                assert isinstance(row, dict), row
                bodies.setdefault(file.name, []).extend(SOURCE.parse(row))
    assert bodies["cpt.txt"] == [Passage(spaced(text)) for text in column("cpt", "text")]
    turns = [[(turn.role, turn.content) for turn in body.turns] for body in bodies["sft.jsonl"]]
    assert turns == [[(t["role"], t["content"].strip()) for t in said] for said in column("sft", "messages")]
    pairs = [(body.prompt[-1].content, body.chosen, body.rejected) for body in bodies["dpo.json"]]
    wanted = [(r["prompt"][0]["content"], r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in ROWS["dpo"]]
    assert pairs == [tuple(text.strip() for text in pair) for pair in wanted]


def test_llama_factory_lists_its_files(out: Path, tmp_path: Path) -> None:
    folder = export(out, "llama-factory", tmp_path / "x").folder
    info = json.loads((folder / "dataset_info.json").read_text())
    assert set(info) == {"chimed_cpt", "chimed_sft", "chimed_sft_validation", "chimed_dpo"}
    assert (info["chimed_dpo"]["ranking"], info["chimed_sft"]["formatting"]) == (True, "sharegpt")
    for entry in info.values():
        read = lines(folder / entry["file_name"])
        assert set(entry["columns"].values()) == set(read[0])
        tags = entry.get("tags")
        if tags:
            turn = read[0][entry["columns"]["messages"]][0]
            assert set(turn) == {tags["role_tag"], tags["content_tag"]}
    assert [row["messages"] for row in lines(folder / "sft.jsonl")] == column("sft", "messages")
    assert [row["text"] for row in lines(folder / "cpt.jsonl")] == column("cpt", "text")
    assert [[row["rejected"]] for row in lines(folder / "dpo.jsonl")] == column("dpo", "rejected")


def test_axolotl_describes_each_stage(out: Path, tmp_path: Path) -> None:
    folder = export(out, "axolotl", tmp_path / "x").folder
    snippets = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
    assert set(snippets) == {"cpt", "sft", "dpo"}
    assert (snippets["dpo"]["rl"], snippets["cpt"]["datasets"][0]["type"]) == ("dpo", "completion")
    assert snippets["sft"]["test_datasets"][0]["path"] == "sft-validation.jsonl"
    for snippet in snippets.values():
        (entry,) = snippet["datasets"]
        read = lines(folder / entry["path"])[0]
        assert {entry[key] for key in entry if key.startswith("field")} == set(read)
    row = lines(folder / "dpo.jsonl")[0]
    own = ROWS["dpo"][0]
    assert [row["messages"], [row["chosen"]], [row["rejected"]]] == [own["prompt"], own["chosen"], own["rejected"]]


def test_ms_swift_and_openai_have_their_documented_forms(out: Path, tmp_path: Path) -> None:
    swift = export(out, "ms-swift", tmp_path / "swift").folder
    first = ROWS["dpo"][0]
    pair = {"messages": first["prompt"] + first["chosen"], "rejected_response": first["rejected"][0]["content"]}
    assert lines(swift / "dpo.jsonl")[0] == pair
    assert [row["messages"] for row in lines(swift / "sft.jsonl")] == column("sft", "messages")
    assert lines(swift / "cpt.jsonl")[0] == {"messages": [{**REPLY, "content": ROWS["cpt"][0]["text"]}]}
    done = export(out, "openai", tmp_path / "openai")
    assert done.left_out == ("cpt", "rag")
    assert lines(done.folder / "dpo.jsonl")[0] == {
        "input": {"messages": first["prompt"]},
        "preferred_output": first["chosen"],
        "non_preferred_output": first["rejected"],
    }
    assert lines(done.folder / "sft.jsonl") == [{"messages": said} for said in column("sft", "messages")]


def test_text_has_a_blank_line_after_each_document(out: Path, tmp_path: Path) -> None:
    text = (export(out, "text", tmp_path / "x").folder / "cpt.txt").read_text(encoding="utf-8")
    documents = text.split("\n\n")
    assert documents[0] == "失眠\n要规律作息。\n少喝咖啡。"
    assert (len(documents), documents[2]) == (3, "")


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_are_the_same_and_an_export_is_replaced(out: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "x"
    export(out, name, folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.joinpath("export.json").touch()
    export(out, name, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_nothing_but_an_export_is_replaced(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    export(out, "text", folder)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(BuildError, match=r"holds mine\.txt beside the export"):
        export(out, "text", folder)
    (folder / "export.json").unlink()
    with pytest.raises(BuildError, match="is not empty and no export of chimed"):
        export(out, "text", folder)
    for target in (out, out.parent, out / "sft", folder / "mine.txt"):
        with pytest.raises(BuildError):
            export(out, "text", target)
    assert (folder / "mine.txt").read_text() == "mine"


def test_what_cannot_be_exported_is_told(out: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"parquet: no such format; allowed are released, llama-factory"):
        export(out, "parquet", tmp_path / "x")
    stage(tmp_path / "rag-only", "rag", {"train": ROWS["rag"]})
    with pytest.raises(BuildError, match="holds rag, and text has a form for cpt only"):
        export(tmp_path / "rag-only", "text", tmp_path / "x")
    with pytest.raises(BuildError, match=r"holds no stage with a manifest\.json"):
        export(tmp_path, "text", tmp_path / "x")
    (tmp_path / "rag-only" / "rag" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(BuildError, match=r"train-00000-of-00002\.parquet of the manifest is gone"):
        export(tmp_path / "rag-only", "text", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(), min_size=1))
def test_strings_are_json(texts: list[str]) -> None:
    assert [json.loads(text) for text in _quoted(pa.array(texts, pa.string())).to_pylist()] == texts


def test_every_end_of_a_line_is_known() -> None:
    import re

    marks = [chr(code) for code in range(0x3000) if len(f"a{chr(code)}b".splitlines()) > 1]
    pattern = re.sub(r"\\x\{(\w+)\}", lambda found: f"\\u{int(found[1], 16):04x}", _BREAKS)
    assert all(re.fullmatch(pattern, mark) for mark in marks)
