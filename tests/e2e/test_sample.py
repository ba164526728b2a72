"""`chimed build` on the embedded sample, as a newcomer runs it: the whole line, and every law on what comes out."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from chimed.sources import SAMPLE
from chimed.stages import COLUMNS

PLANTED = json.loads((SAMPLE / "PLANTED.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def out(chimed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "out"
    done = chimed("build", "--stage", "all", "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "sample corpus that comes with chimed" in done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("Built ")
    assert max(len(line) for line in lines if str(folder) not in line) <= 80
    return folder


@pytest.fixture(scope="module")
def ledger(out: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.read_table(out / "ledger.parquet").to_pylist()}


def _rows(out: Path, stage: str) -> list[dict[str, Any]]:
    return [row for path in sorted((out / stage).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_nothing_vanishes(out: Path, ledger: dict[str, dict[str, Any]]) -> None:
    counts = json.loads((out / "sft" / "manifest.json").read_text())["counts"]
    for source, files in counts.items():
        for file, own in files.items():
            assert own["read"] == own["kept"] + own["rejected"] + own["repeated"] + own["leaked"]
            assert own["read"] == sum(row["source"] == source and row["file"] == file for row in ledger.values())
            found = dict.fromkeys(("kept", "rejected", "repeated", "leaked"), 0)
            for row in ledger.values():
                if row["source"] == source and row["file"] == file:
                    found[row["verdict"]] += 1
            assert found == {name: own[name] for name in found}


def test_every_planted_reject_has_its_reason(ledger: dict[str, dict[str, Any]]) -> None:
    for name, reason in PLANTED["rejects"].items():
        assert (ledger[name]["verdict"], ledger[name]["reason"]) == ("rejected", reason)


def test_planted_copies_repeat_the_row_that_is_kept(ledger: dict[str, dict[str, Any]]) -> None:
    for group in [*PLANTED["exact_duplicates"], *PLANTED["near_duplicates"]]:
        kept = [name for name in group if ledger[name]["verdict"] == "kept"]
        repeated = [name for name in group if ledger[name]["verdict"] == "repeated"]
        assert len(kept) == 1, group
        assert sorted(kept + repeated) == sorted(group)
        assert {ledger[name]["by"] for name in repeated} == set(kept)
        assert all(float(ledger[name]["detail"].split()[1]) >= 0.8 for name in repeated)


def test_planted_leaks_name_the_evaluation_item_and_train_nowhere(out: Path, ledger: dict[str, dict[str, Any]]) -> None:
    trained = {row["id"] for stage in ("cpt", "sft", "dpo") for row in _rows(out, stage)}
    for leak in PLANTED["leaks"]:
        row = ledger[leak["train"]]
        assert (row["verdict"], row["by"]) == ("leaked", leak["evaluation"])
        assert leak["train"] not in trained


def test_held_out_rows_are_in_eval_and_in_no_training_stage(out: Path) -> None:
    evaluated = {row["id"] for row in _rows(out, "eval")}
    assert any("cmexam/test.csv" in name for name in evaluated)
    assert any("huatuo26M_test" in name for name in evaluated)
    for stage in ("cpt", "sft", "dpo", "rag"):
        assert not {row["id"].split("@")[0] for row in _rows(out, stage)} & evaluated


def test_personal_data_reaches_no_stage(out: Path) -> None:
    raw = (SAMPLE / "toyhom" / "样例_内科.csv").read_bytes().decode("gb18030")
    secrets = [word for word in ("13800138000", "@", "QQ", "http") if word in raw]
    assert secrets
    for stage in COLUMNS:
        text = json.dumps(_rows(out, stage), ensure_ascii=False)
        for secret in ("13800138000", "http://", "https://"):
            assert secret not in text
    text = json.dumps(_rows(out, "sft"), ensure_ascii=False)
    assert "[手机号]" in text


def test_one_script(out: Path, ledger: dict[str, dict[str, Any]]) -> None:
    (name,) = PLANTED["traditional_script"]
    assert ledger[name]["verdict"] == "kept"
    (row,) = [row for row in _rows(out, "sft") if row["id"] == name]
    text = row["messages"][0]["content"] + row["messages"][1]["content"]
    assert not set(text) & set("醫藥嗎請問這個會麼")


def test_stages_have_their_columns_and_load_with_datasets(out: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for stage, schema in COLUMNS.items():
        loaded = datasets.load_dataset(str(out / stage), cache_dir=str(tmp_path))
        manifest = json.loads((out / stage / "manifest.json").read_text())
        assert {split: len(rows) for split, rows in loaded.items()} == manifest["rows"]
        for rows in loaded.values():
            assert rows.column_names == schema.names
            assert all(name and source for name, source in zip(rows["id"], rows["source"], strict=True))


def test_sft_rows_alternate_and_end_with_the_assistant(out: Path) -> None:
    for row in _rows(out, "sft"):
        roles = [turn["role"] for turn in row["messages"] if turn["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert roles
        assert all(turn["content"].strip() for turn in row["messages"])


def test_manifest_says_what_was_done(out: Path) -> None:
    import hashlib

    manifest = json.loads((out / "sft" / "manifest.json").read_text())
    assert {"stage", "recipe_digest", "rows", "counts", "files", "versions", "seconds", "mb_per_second"} <= set(
        manifest
    )
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / "sft" / name).read_bytes()).hexdigest() == digest
    assert {"read", "clean", "mask", "minhash", "leakage", "duplicates", "render", "shards"} <= set(manifest["seconds"])
    card = (out / "sft" / "README.md").read_text(encoding="utf-8")
    assert "Not for clinical use" in card


def test_why_explains_every_kind_of_row(chimed: Any, out: Path, ledger: dict[str, dict[str, Any]]) -> None:
    for verdict in ("kept", "rejected", "repeated", "leaked"):
        name = next(name for name, row in ledger.items() if row["verdict"] == verdict)
        done = chimed("why", name, "--out", out)
        assert done.returncode == 0, done.stderr
        assert f"{verdict}" in done.stdout
        (row,) = json.loads(chimed("why", name, "--out", out, "--json").stdout)
        assert (row["id"], row["verdict"]) == (name, verdict)
    done = chimed("why", "xywy-kg/medical_0.json#1", "--out", out, "--json")
    assert len(json.loads(done.stdout)) > 10  # all records of one raw row


def test_show_prints_rows_and_counts(chimed: Any, out: Path) -> None:
    done = chimed("show", out / "sft", "--rows", 2)
    assert done.returncode == 0, done.stderr
    assert "messages: assistant" in done.stdout
    shown = json.loads(chimed("show", out / "eval", "--rows", 1, "--json").stdout)
    assert len(shown["rows"]) == 1


def test_sources_lists_every_source(chimed: Any) -> None:
    listed = json.loads(chimed("sources", "--raw", SAMPLE, "--json").stdout)
    for entry in listed:
        there = (SAMPLE / entry["name"]).is_dir()
        assert ("found" in entry["state"]) == there, entry
    assert sum("found" in entry["state"] for entry in listed) >= 9
    assert chimed("sources").returncode == 0


def test_export_writes_the_released_form(chimed: Any, out: Path, tmp_path: Path) -> None:
    done = chimed("export", out, "--to", "released", "--out", tmp_path / "released")
    assert done.returncode == 0, done.stderr
    conversations = [json.loads(line) for line in (tmp_path / "released" / "sft.jsonl").read_text("utf-8").splitlines()]
    assert {turn["from"] for row in conversations for turn in row["conversations"]} >= {"input", "output"}
    again = chimed("export", out, "--to", "released", "--out", out)
    assert again.returncode == 2
    assert again.stderr.startswith("chimed: ")


def test_push_asks_about_licences_first(chimed: Any, out: Path) -> None:
    done = chimed("push", out, "--repo", "someone/chimed", env={"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": ""})
    assert done.returncode == 2
    assert "explaincpe" in done.stderr
