"""The whole line over the real raw files, where they are at hand."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest


def _stem(text: str) -> str:
    return re.sub(r"[^\w]", "", text)


@pytest.fixture(scope="module")
def stems(raw: Path) -> dict[str, dict[str, list[str]]]:
    """Ids by punctuation-free stem, read without the project's own readers."""
    found: dict[str, dict[str, list[str]]] = {name: defaultdict(list) for name in ("validation", "test", "explaincpe")}
    book = openpyxl.load_workbook(raw / "cmexam" / "val.xlsx", read_only=True)
    for number, row in enumerate(book.active.iter_rows(min_row=2, values_only=True), 1):
        found["validation"][_stem(row[0])].append(f"cmexam/val.xlsx#{number}")
    book.close()
    for number, line in enumerate((raw / "cmexam" / "apollo_cmexam.jsonl").read_text("utf-8").splitlines(), 1):
        found["test"][_stem(json.loads(line)["question"])].append(f"cmexam/apollo_cmexam.jsonl#{number}")
    for file in ("train", "dev", "test"):
        for number, row in enumerate(json.loads((raw / "explaincpe" / f"{file}.json").read_text("utf-8")), 1):
            found["explaincpe"][_stem(row["question"])].append(f"explaincpe/{file}.json#{number}")
    return found


def _build(chimed: Any, raw: Path, folder: Path, sources: str = "") -> tuple[Path, dict[str, dict[str, Any]]]:
    paths = ["--raw", raw, "--out", folder / "out"]
    if sources:
        (folder / "recipe.yaml").write_text(f"sources: {sources}\n", encoding="utf-8")
        paths += ["--recipe", folder / "recipe.yaml"]
    done = chimed("build", "--stage", "all", *paths)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "out", {row["id"]: row for row in pq.read_table(folder / "out" / "ledger.parquet").to_pylist()}


def _trained(out: Path) -> set[str]:
    stages = ("cpt", "sft", "dpo", "rag")
    rows = (pq.read_table(p)["id"].to_pylist() for stage in stages for p in (out / stage).glob("*.parquet"))
    return {name.split("@")[0] for names in rows for name in names}


def test_nothing_vanishes_and_what_is_held_out_stays_out(
    chimed: Any, raw: Path, stems: dict[str, dict[str, list[str]]], tmp_path: Path
) -> None:
    out, ledger = _build(chimed, raw, tmp_path)
    counts = json.loads((out / "sft" / "manifest.json").read_text())["counts"]
    assert len(counts) >= 20
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in ledger.values():
        found[row["source"], row["file"]][row["verdict"]] += 1
    for source, files in counts.items():
        for file, own in files.items():
            verdicts = found[source, file]
            assert (
                own["read"] == sum(verdicts.values()) == own["kept"] + own["rejected"] + own["repeated"] + own["leaked"]
            )
    # ExplainCPE and the validation set of CMExam share 48 stems; both sides are never left to be trained and scored on.
    shared = set(stems["validation"]) & set(stems["explaincpe"])
    assert len(shared) == 48
    trained = _trained(out)
    for stem in shared:
        rows = [*stems["validation"][stem], *stems["explaincpe"][stem]]
        could_train = [name for name in rows if name.startswith("explaincpe/train")]
        assert all(ledger[name]["verdict"] in ("leaked", "rejected") for name in could_train), stem
        assert not set(rows) & trained, stem


def test_items_of_two_cmexam_splits_leak_when_the_test_set_is_evaluated(
    chimed: Any, raw: Path, stems: dict[str, dict[str, list[str]]], tmp_path: Path
) -> None:
    out, ledger = _build(chimed, raw, tmp_path, "[{name: cmexam, splits: {validation: train}, stages: [cpt, sft]}]")
    shared = set(stems["validation"]) & set(stems["test"])
    assert len(shared) == 14  # of the 56 in all: the test file at hand holds 2,000 of the 6,811 test items
    trained = _trained(out)
    for stem in shared:
        for name in stems["validation"][stem]:
            assert ledger[name]["verdict"] == "leaked", (stem, name)
            assert name not in trained
        assert {ledger[name]["verdict"] for name in stems["test"][stem]} == {"kept"}
