"""The prepared folder: what stands in it, and that it is the same however it was made."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from qilin import template
from qilin.data import open_stage, verify
from qilin.errors import DataError, ModelError, RunError
from qilin.prepare import Prepared, prepare
from qilin.recipe import Recipe

from .conftest import TEXTS, turns

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

Build = Callable[..., Path]
Make = Callable[..., Recipe]

PASSAGES = [TEXTS[number % 3] * (1 + number % 5) + str(number) for number in range(40)]
CHATS = [turns(f"问{number}", "答" * (number % 9 + 1), "再问", "再答" * (number % 7)) for number in range(40)]
PAIRS = [(f"问{number}", "好" * (number % 9 + 1), "坏" * (number % 5 + 1)) for number in range(40)]


@pytest.fixture(autouse=True)
def chatml(tokenizer: Any) -> None:
    tokenizer.chat_template = template.read("chatml")


def documents(prepared: Prepared, split: str = "train") -> list[tuple[list[int], list[int]]]:
    """The ids and labels of each document or piece."""
    found = []
    for row in prepared.load(split):
        at = 0
        for size in row["seq_lengths"]:
            found.append((row["input_ids"][at : at + size], row["labels"][at : at + size]))
            at += size
        assert at == len(row["input_ids"]) == len(row["labels"])
    return found


def files(prepared: Prepared) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prepared.folder.iterdir())}


def test_passages_lose_no_token_and_end(tokenizer: Any, build: Build, recipe: Make) -> None:
    made = prepare(recipe(build("cpt", train=PASSAGES, validation=PASSAGES[:3])), tokenizer)
    expected = Counter(token for text in PASSAGES for token in [*tokenizer.encode(text), tokenizer.eos_token_id])
    own = documents(made)
    assert Counter(token for ids, _ in own for token in ids) == expected
    assert all(ids == labels and len(ids) <= 64 for ids, labels in own)
    counts = made.splits["train"]
    assert counts.tokens == expected.total() == sum(len(ids) for ids, _ in own)
    assert counts.trained == counts.tokens - counts.pieces
    assert counts.documents == expected[tokenizer.eos_token_id] == 40
    assert counts.pieces == len(own) > 40
    assert counts.fill == counts.tokens / (counts.rows * 64) > 0.9
    assert made.splits["validation"].documents == 3
    assert made.stage == "cpt"


def test_a_short_passage_is_its_tokens_and_an_end(tokenizer: Any, build: Build, recipe: Make) -> None:
    made = prepare(recipe(build("cpt", train=["高血压<|im_end|>", "", "头痛"])), tokenizer)
    said = {tokenizer.decode(ids) for ids, _ in documents(made)}
    assert said == {"高血压<|im_end|></s>", "头痛</s>"}
    controls = [token for ids, _ in documents(made) for token in ids if token in tokenizer.all_special_ids]
    assert controls == [tokenizer.eos_token_id] * 2  # the end-of-turn in the text is text
    assert made.splits["train"].dropped == 1
    assert [(loss.id, loss.what) for loss in made.examples] == [("a/train#1", "dropped")]


def test_what_a_tokenizer_sets_around_a_document(sentencepiece: Any, build: Build, recipe: Make) -> None:
    made = prepare(recipe(build("cpt", train=["高血压", "头痛"])), sentencepiece)
    assert sorted(ids for ids, _ in documents(made)) == sorted(
        [*sentencepiece(text)["input_ids"], sentencepiece.eos_token_id] for text in ("高血压", "头痛")
    )


def test_conversations_carry_loss_on_replies_alone(tokenizer: Any, build: Build, recipe: Make) -> None:
    made = prepare(recipe(build("sft", train=CHATS), length=200), tokenizer)
    said = Counter(tuple(message["content"] for message in chat if message["role"] == "assistant") for chat in CHATS)
    found: Counter[tuple[str, ...]] = Counter()
    for ids, labels in documents(made):
        assert all(label in (-100, own) for own, label in zip(ids, labels, strict=True))
        text = tokenizer.decode([label for label in labels if label != -100])
        found[tuple(text.split("<|im_end|>")[:-1])] += 1
        assert labels[-1] == ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found == said
    counts = made.splits["train"]
    assert (counts.documents, counts.dropped, counts.truncated) == (40, 0, 0)
    assert counts.trained == sum(label != -100 for _, labels in documents(made) for label in labels)


def test_a_long_conversation_keeps_the_exchanges_that_fit(tokenizer: Any, build: Build, recipe: Make) -> None:
    chats = [turns("问", "答", "问", "答" * 200), turns("问" * 200, "答"), turns("问", "答"), turns("没有回答")]
    made = prepare(recipe(build("sft", train=chats)), tokenizer)
    counts = made.splits["train"]
    assert (counts.documents, counts.dropped, counts.truncated) == (2, 2, 1)
    alone = tokenizer.apply_chat_template(turns("问", "答"), return_dict=False)[:-1]  # without the last line break
    assert [ids for ids, _ in documents(made)] == [alone, alone]
    assert [(loss.id[-1], loss.what, loss.tokens > 64) for loss in made.examples] == [
        ("1", "dropped", True),
        ("3", "dropped", False),
        ("0", "truncated", True),
    ]


def test_pairs_are_prompt_and_replies(tokenizer: Any, build: Build, recipe: Make) -> None:
    pairs = [*PAIRS, ("长" * 60, "好", "坏"), ("问", "好", "坏" * 80)]
    made = prepare(recipe(build("dpo", train=pairs)), tokenizer)
    rows = made.load("train")
    assert len(rows) == 40
    for row, (prompt, chosen, rejected) in zip(rows, pairs[:40], strict=True):
        asked = tokenizer.apply_chat_template(turns(prompt), add_generation_prompt=True, return_dict=False)
        assert row["prompt_ids"] == asked
        assert tokenizer.decode(row["chosen_ids"]) == f"{chosen}<|im_end|>"
        assert tokenizer.decode(row["rejected_ids"]) == f"{rejected}<|im_end|>"
    counts = made.splits["train"]
    assert (counts.rows, counts.documents, counts.dropped) == (40, 40, 2)
    assert counts.trained == sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    assert counts.tokens == counts.trained + 2 * sum(len(row["prompt_ids"]) for row in rows)


@pytest.mark.parametrize(
    "stage", ["sft", pytest.param("cpt", marks=pytest.mark.slow), pytest.param("dpo", marks=pytest.mark.slow)]
)
def test_bytes_do_not_depend_on_workers(
    tokenizer: Any, build: Build, recipe: Make, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qilin.prepare._FEW", 1)
    monkeypatch.setattr("qilin.documents._ROWS", 3)
    rows = {"cpt": PASSAGES, "sft": CHATS, "dpo": PAIRS}[stage]
    own = recipe(build(stage, train=rows, validation=rows[:4]))
    one = prepare(own, tokenizer)
    before = files(one)
    shutil.rmtree(one.folder)
    assert files(prepare(own, tokenizer, workers=2)) == before


def test_many_shards_and_batches_are_one_split(
    tokenizer: Any, build: Build, recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build("cpt", train=PASSAGES)
    whole = prepare(recipe(folder, prepared=tmp_path / "one"), tokenizer)
    monkeypatch.setattr("qilin.shards._SHARD", 64 * 5)
    monkeypatch.setattr("qilin.shards._BATCH", 64 * 2)
    many = prepare(recipe(folder, prepared=tmp_path / "two"), tokenizer)
    assert len(list(many.folder.glob("train-*.arrow"))) > 3
    assert whole.load("train")[:] == many.load("train")[:]
    assert whole.splits == many.splits


def test_what_decides_the_bytes_decides_the_folder(tokenizer: Any, build: Build, recipe: Make) -> None:
    folder = build("sft", train=CHATS)
    changes: list[dict[str, Any]] = [{}, {}, {"length": 65}, {"rows": 9}, {"seed": 1}]
    made = {prepare(recipe(folder, **change), tokenizer).folder for change in changes}
    tokenizer.chat_template = template.read("plain")
    made.add(prepare(recipe(folder), tokenizer).folder)
    assert len(made) == 5


def test_a_seeded_choice_of_documents(tokenizer: Any, build: Build, recipe: Make) -> None:
    folder = build("cpt", train=[f"甲{number}" for number in range(40)], validation=["乙"])

    def chosen(**data: Any) -> set[str]:
        made = prepare(recipe(folder, **data), tokenizer)
        assert made.splits["validation"].documents == 1
        return {tokenizer.decode(ids) for ids, _ in documents(made)}

    assert len(chosen(rows=10)) == 10
    assert chosen(rows=10) < chosen(rows=20)
    assert chosen(rows=10) != chosen(rows=10, seed=1)
    with pytest.raises(DataError, match=r"asks for 41 documents, .* has 40"):
        chosen(rows=41)


def test_replay_makes_up_its_share(tokenizer: Any, build: Build, recipe: Make) -> None:
    folder = build("cpt", train=PASSAGES)
    general = build(
        "cpt", "general", train=["replay" * (number % 4 + 1) for number in range(900)], validation=["general"]
    )
    made = prepare(recipe(folder, replay={"path": general, "share": 0.25}), tokenizer)
    tokens = dict.fromkeys((True, False), 0)
    for ids, _ in documents(made):
        tokens["replay" in tokenizer.decode(ids)] += len(ids)
    longest = max(len(ids) for ids, _ in documents(made))
    exact = 0.25 / 0.75 * tokens[False]
    assert exact <= tokens[True] <= exact + longest
    assert [tokenizer.decode(ids) for ids, _ in documents(made, "general")] == ["general</s>"]
    with pytest.raises(DataError, match=r"too few for data.replay.share: at most 0\.\d+"):
        prepare(recipe(folder, replay={"path": general, "share": 0.99}), tokenizer)


def test_a_finished_folder_is_taken_and_a_damaged_one_made_anew(tokenizer: Any, build: Build, recipe: Make) -> None:
    own = recipe(build("cpt", train=PASSAGES))
    seen: list[tuple[int, int, str]] = []
    made = prepare(own, tokenizer, progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] == made.splits["train"].rows
    before = files(made)
    seen.clear()
    assert prepare(own, tokenizer, progress=lambda *step: seen.append(step)) == made
    assert not seen
    shard = next(made.folder.glob("train-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:100])
    assert prepare(own, tokenizer) == made
    assert files(made) == before


KILLED = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from qilin.prepare import prepare
from qilin.recipe import Recipe

if __name__ == "__main__":
    folder, out, tokenizer = sys.argv[1:]
    data = {"path": folder, "length": 64, "prepared": out}
    recipe = Recipe(stage="cpt", model={"path": "m"}, data=data, trainer={"output_dir": "o"})
    def said(*step):
        print(*step, flush=True)
    prepare(recipe, AutoTokenizer.from_pretrained(tokenizer), progress=said)
"""


def command(tmp_path: Path, tokenizer: Any, folder: Path, out: str, script: str = KILLED) -> list[str]:
    """What runs the script in a process of its own."""
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "script.py"  # a file, since spawned workers import it
    path.write_text(script)
    return [sys.executable, str(path), str(folder), str(tmp_path / out), str(tmp_path / "model")]


def test_two_processes_prepare_one_folder(tokenizer: Any, build: Build, recipe: Make, tmp_path: Path) -> None:
    folder = build("cpt", train=PASSAGES)
    both = command(tmp_path, tokenizer, folder, "both")
    for process in [subprocess.Popen(both, stdout=subprocess.DEVNULL) for _ in range(2)]:
        assert process.wait() == 0
    alone = prepare(recipe(folder, prepared=tmp_path / "alone"), tokenizer)
    assert files(prepare(recipe(folder, prepared=tmp_path / "both"), tokenizer)) == files(alone)
    assert not list((tmp_path / "both").glob(".*.partial"))


def test_a_killed_preparation_is_made_whole(tokenizer: Any, build: Build, recipe: Make, tmp_path: Path) -> None:
    folder = build("cpt", train=PASSAGES * 50)
    with subprocess.Popen(command(tmp_path, tokenizer, folder, "killed"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().endswith("tokenise train\n")
        process.send_signal(signal.SIGKILL)
    assert list((tmp_path / "killed").glob(".*.partial"))
    assert not list((tmp_path / "killed").glob("cpt-*"))
    made = prepare(recipe(folder, prepared=tmp_path / "killed"), tokenizer)
    assert files(made) == files(prepare(recipe(folder, prepared=tmp_path / "whole"), tokenizer))
    assert not list((tmp_path / "killed").glob(".*.partial"))


def test_a_full_disk_is_one_sentence(
    tokenizer: Any, build: Build, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    own = recipe(build("cpt", train=PASSAGES))
    for place in ("Store.add", "pa.OSFile"):
        with monkeypatch.context() as patched:
            patched.setattr(f"qilin.shards.{place}", full)
            with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); make room there"):
                prepare(own, tokenizer)
    assert prepare(own, tokenizer).splits["train"].documents == 40


def test_a_worker_that_dies_is_one_sentence(
    tokenizer: Any, build: Build, recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qilin.prepare._FEW", 1)
    monkeypatch.setattr("qilin.documents._start", _die)
    with pytest.raises(RunError, match="a worker process died"):
        prepare(recipe(build("cpt", train=PASSAGES)), tokenizer, workers=2)


def _die(_: Any) -> None:
    os._exit(9)


def test_data_that_cannot_be_trained_on(tokenizer: Any, build: Build, recipe: Make, tmp_path: Path) -> None:
    folder = build("sft", train=CHATS, validation=[])
    assert set(open_stage(folder, "sft").splits) == {"train"}
    with pytest.raises(DataError, match="holds data for the stage sft, not dpo"):
        open_stage(folder, "dpo")
    with pytest.raises(DataError, match=r"has no manifest.json"):
        open_stage(tmp_path, "sft")
    with pytest.raises(DataError, match="is not a folder"):
        open_stage(tmp_path / "none", "sft")
    with pytest.raises(DataError, match="the split train is empty"):
        open_stage(build("sft", "empty", train=[]), "sft")
    with pytest.raises(DataError, match="no document fits into"):
        prepare(recipe(build("sft", "long", train=[turns("问" * 200, "答")])), tokenizer)
    general = build("sft", "general", train=CHATS)
    with pytest.raises(DataError, match="stage sft, not cpt"):
        prepare(recipe(build("cpt", train=PASSAGES), replay={"path": general, "share": 0.1}), tokenizer)


def test_files_that_changed_since_the_build(tokenizer: Any, build: Build, recipe: Make) -> None:
    folder = build("cpt", train=PASSAGES)
    shard = next(folder.glob("*.parquet"))
    manifest, whole = json.loads((folder / "manifest.json").read_text()), shard.read_bytes()

    pq.write_table(pq.read_table(shard), shard, compression="none")
    with pytest.raises(DataError, match="has changed since it was built"):
        prepare(recipe(folder), tokenizer)
    with pytest.raises(DataError, match="has changed since it was built"):
        verify(open_stage(folder, "cpt"))
    pq.write_table(pq.read_table(shard)[:5], shard)
    with pytest.raises(DataError, match="hold 5 rows, the manifest says 40"):
        open_stage(folder, "cpt")
    pq.write_table(pq.read_table(shard).drop_columns(["text"]), shard)
    with pytest.raises(DataError, match="lacks the columns text"):
        open_stage(folder, "cpt")
    shard.write_bytes(whole[:300])
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        open_stage(folder, "cpt")
    shard.unlink()
    with pytest.raises(DataError, match="stands in the manifest but is missing"):
        open_stage(folder, "cpt")
    for broken in ("{", "[]", json.dumps(manifest | {"files": None})):
        (folder / "manifest.json").write_text(broken)
        with pytest.raises(DataError, match=r"manifest.json"):
            open_stage(folder, "cpt")


def test_a_template_that_refuses_a_row_names_it(tokenizer: Any, build: Build, recipe: Make) -> None:
    chats = [*CHATS, [{"role": "tool", "content": "x"}, *turns("问", "答")]]
    with pytest.raises(ModelError, match=r"the role tool is not .* \(one of the rows a/train#\d+ to a/train#\d+"):
        prepare(recipe(build("sft", train=chats)), tokenizer)


@pytest.mark.slow
def test_orphaned_workers_end(tokenizer: Any, build: Build, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    small = "import qilin.prepare, qilin.documents\nqilin.prepare._FEW = 1\nqilin.documents._ROWS = 3\n"
    script = small + KILLED.replace("progress=said", "progress=said, workers=2")
    orphans = command(tmp_path, tokenizer, build("cpt", train=PASSAGES * 50), "killed", script)
    with subprocess.Popen(orphans, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    deadline = time.monotonic() + 30
    while any(worker.is_running() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(worker.is_running() for worker in workers)
