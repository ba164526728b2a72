"""Likelihoods against plain forward passes, and the exported tasks against lm-eval's own model, item by item."""

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

lm_eval = pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")
pytest.importorskip("torch", reason="needs the train extra: pip install -e '.[train]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from qilin.errors import RecipeError, RunError  # noqa: E402
from qilin.evaluate import prompt  # noqa: E402
from qilin.evaluate.extract import letters  # noqa: E402
from qilin.evaluate.recipe import Recipe  # noqa: E402
from qilin.evaluate.run import evaluate  # noqa: E402
from qilin.evaluate.tasks import _REPLY, export  # noqa: E402

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
FIELDS = ("explanation", "department", "discipline", "competency", "disease_group", "difficulty")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 items, every tenth of several answers, and one whose text holds a control token; 10 to draw shots from."""
    rng = random.Random(3)
    splits = {"test": 50, "validation": 10}
    folder = tmp_path_factory.mktemp("stage") / "eval"
    folder.mkdir()
    files = {}
    for split, count in splits.items():
        rows = [row(split, number, rng) for number in range(count)]
        kinds = {name: pa.string() for name in rows[0]} | {"options": pa.list_(pa.string())}
        kinds["messages"] = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        path = folder / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(kinds.items()))), path)
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"stage": "eval", "rows": splits, "files": files}))
    return folder


def row(split: str, number: int, rng: random.Random) -> dict[str, Any]:
    words = rng.sample(["发热", "咳嗽", "头痛", "乏力", "胸闷", "心悸", "恶心", "腹泻"], rng.choice([3, 4]))
    answer = "".join(sorted(rng.sample("ABC", 2))) if number % 10 == 0 else rng.choice("ABC")
    own = {"id": f"cmexam/{split}{number}", "source": "cmexam", "kind": "exam", "answer": answer}
    mark = "<|end|>" if (split, number) == ("test", 7) else ""
    question = f"第{number}例{'，'.join(rng.choices(words, k=rng.randint(1, 8)))}{mark}首先考虑"
    return own | {"question": question, "options": words, "messages": []} | dict.fromkeys(FIELDS, "")


@pytest.fixture(scope="module", params=[TEMPLATE, ""], ids=["template", "plain"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama, with a chat template or without."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: place for place, token in enumerate([*marks, *alphabet])}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=marks[0], pad_token=marks[0], extra_special_tokens=marks[1:]
    )
    tokenizer.chat_template = request.param or None
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def said(model: Path, stage: Path, out: Path, **more: Any) -> Recipe:
    data = {"path": stage, "sets": ["cmexam/test"], **more.pop("data", {})}
    recipe = {"stage": "eval", "model": {"path": str(model)}, "data": data, "output_dir": out, **more}
    return Recipe.model_validate(recipe)


def real() -> Path:
    folder = os.environ.get("QILIN_MODEL")
    if not folder:
        pytest.skip("no real model: set QILIN_MODEL to the folder of one with a chat template")
    return Path(folder)


def lines(recipe: Recipe) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (evaluate(recipe) / "items.jsonl").read_text("utf-8").splitlines()]


def predictions(recipe: Recipe) -> dict[tuple[str, str], bool]:
    """By method and item, whether `qilin eval` counts it as right."""
    found = lines(recipe)
    return {(method, line["id"]): answer["correct"] for line in found for method, answer in line["methods"].items()}


def answered(folder: Path, tasks: tuple[str, ...], model: Path) -> dict[str, Any]:
    """What lm-eval makes of tasks with its own loader, encoder, batches and scores."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = HFLM(pretrained=str(model), dtype="float32", batch_size=32, add_bos_token=False, device="cpu")
    where = Path.cwd()
    os.chdir(folder)
    try:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = lm_eval.simple_evaluate(own, tasks=list(tasks), task_manager=manager, bootstrap_iters=0)
    finally:
        os.chdir(where)
    return dict(found)


def same(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Assert that lm-eval counts the same items as right; a control token in a text is one to lm-eval."""
    ours, done = predictions(recipe), export(recipe, folder)
    found = answered(folder, done.tasks, Path(recipe.model.path if recipe.model else ""))
    for name in done.tasks:
        method = name.rpartition("_")[2]
        samples = found["samples"][name]
        assert len(samples) == done.items[name.removesuffix(f"_{method}")]
        if method != "generation":
            theirs = {sample["doc"]["id"]: bool(sample["acc"]) for sample in samples}
            apart = {id_ for id_, right in theirs.items() if right != ours[method, id_]}
            assert apart <= {"cmexam/test7"}
            own = [ours[method, id_] for id_ in theirs]
            assert abs(found["results"][name]["acc,none"] - sum(own) / len(own)) <= len(apart) / len(own) + 1e-9
            assert 0 < sum(own) < len(own)
    return found


def test_lm_eval_counts_the_same_items_as_right(model: Path, stage: Path, tmp_path: Path) -> None:
    exam = {"shots": 1, "shots_from": "cmexam/validation"}
    recipe = said(model, stage, tmp_path / "run", exam=exam, max_new_tokens=4, batch_size=16)
    found = same(recipe, tmp_path / "tasks")
    sample = found["samples"]["qilin_cmexam_test_closed_letters"][0]
    assert sample["arguments"][0][0].count("答案：" if "<|user|>" not in sample["doc"]["prompt"] else "<|user|>") == 2
    told = export(recipe, tmp_path / "again")
    assert told.other == 1  # the item with a control token in its text
    assert "read as other tokens by lm-eval" in str(told)


@pytest.mark.slow
def test_a_real_model_agrees_on_ten_items(stage: Path, tmp_path: Path) -> None:
    data = {"path": os.environ.get("QILIN_EVAL", str(stage)), "rows": 10}
    same(said(real(), stage, tmp_path / "run", data=data, exam={"methods": ["letters", "sets"]}), tmp_path / "tasks")


Score = Callable[[list[dict[str, str]], list[str]], list[float]]


def opened(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def by_hand(folder: Path) -> Score:
    """The log-likelihoods of replies: each whole text through the model alone, without batches, caches or lm-eval."""
    import torch

    model, tokenizer = opened(folder)

    def score(turns: list[dict[str, str]], replies: list[str]) -> list[float]:
        if tokenizer.chat_template:
            how = {"add_generation_prompt": True, "return_dict": False, "sanitize_control_tokens": True}
            ids = tokenizer.apply_chat_template(turns, **how)
        else:
            ids = tokenizer.encode(prompt.plain(turns), split_special_tokens=True)
        found = []
        for reply in replies:
            own = tokenizer.encode(reply, add_special_tokens=False)
            with torch.no_grad():
                logits = model(torch.tensor([ids + own])).logits[0].log_softmax(-1)
            found.append(sum(float(logits[len(ids) - 1 + place, token]) for place, token in enumerate(own)))
        return found

    return score


def after_the_prompt(folder: Path) -> Score:
    """The same for a model whose forward passes take long: all replies are read at once after their prompt's cache."""
    import torch

    model, tokenizer = opened(folder)

    def score(turns: list[dict[str, str]], replies: list[str]) -> list[float]:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        rows = [tokenizer.encode(reply, add_special_tokens=False) for reply in replies]
        width = max(map(len, rows))
        filled = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        with torch.no_grad():
            out = model(tokenizer.encode(text, add_special_tokens=False, return_tensors="pt"), use_cache=True)
            first = out.logits[0, -1].log_softmax(-1)
            out.past_key_values.batch_repeat_interleave(len(rows))
            rest = model(filled, past_key_values=out.past_key_values).logits.log_softmax(-1)
        return [
            float(first[row[0]]) + sum(float(rest[place, at, token]) for at, token in enumerate(row[1:]))
            for place, row in enumerate(rows)
        ]

    return score


def agree(score: Score, recipe: Recipe, end: str) -> int:
    """Assert the likelihoods and the choice of every item by hand; equals within rounding may be chosen either way."""
    found = lines(recipe)
    for line in found:
        for method, closing in (("letters", ""), ("sets", end)):
            scores = line["methods"][method]["scores"]
            given = score(line["prompt"], [candidate + closing for candidate in scores])
            hand = dict(zip(scores, given, strict=True))
            assert scores == pytest.approx(hand, abs=2e-3)
            assert hand[line["methods"][method]["prediction"]] == pytest.approx(max(hand.values()), abs=4e-3)
    return len(found)


def test_likelihoods_are_those_of_a_plain_forward_pass(model: Path, stage: Path, tmp_path: Path) -> None:
    exam = {"methods": ["letters", "sets"], "shots": 1, "shots_from": "cmexam/validation"}
    recipe = said(model, stage, tmp_path / "run", exam=exam, batch_size=3, data={"rows": 9})
    end = "<|end|>" if opened(model)[1].chat_template else prompt.END_OF_PLAIN
    assert agree(by_hand(model), recipe, end) == 9


@pytest.mark.slow
def test_likelihoods_of_a_real_model_are_those_of_a_plain_forward_pass(stage: Path, tmp_path: Path) -> None:
    folder = real()
    data = {"path": os.environ.get("QILIN_EVAL", str(stage)), "rows": 200}
    recipe = said(folder, stage, tmp_path / "run", data=data, exam={"methods": ["letters", "sets"]})
    tokenizer = opened(folder)[1]
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    end = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("!")[2].strip()
    assert agree(after_the_prompt(folder), recipe, end) == (200 if "QILIN_EVAL" in os.environ else 50)


def test_tasks_hold_no_code_and_say_how_to_run(model: Path, stage: Path, tmp_path: Path) -> None:
    done = export(said(model, stage, tmp_path / "run", data={"rows": 3}), tmp_path / "tasks")
    assert sorted(path.suffix for path in done.folder.iterdir()) == [".jsonl", ".md", *[".yaml"] * 3]
    for name in done.tasks:
        text = (done.folder / f"{name}.yaml").read_text("utf-8")
        assert "!" not in text.replace("(?!", "")
        assert yaml.safe_load(text)["task"] == name
    told = (done.folder / "README.md").read_text("utf-8")
    assert "--include_path . --tasks qilin_cmexam_test_closed_letters," in told


def test_what_cannot_be_exported_is_said(model: Path, stage: Path, tmp_path: Path) -> None:
    recipe = said(model, stage, tmp_path / "run")
    with pytest.raises(RecipeError, match="model: is missing"):
        export(recipe.model_copy(update={"model": None}), tmp_path / "tasks")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(RunError, match="not empty"):
        export(recipe, tmp_path / "full")


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("B", "B"),
        ("答案：A、C", "AC"),
        ("本题应选 **D**。", "D"),
        ("CT示占位，故选B和D。", "BD"),
        ("CT检查", ""),
        ("无法判断", ""),
    ],
)
def test_the_expression_reads_plain_replies_as_the_extractor_does(reply: str, read: str) -> None:
    from lm_eval.filters.extraction import RegexFilter

    [[found]] = RegexFilter(_REPLY, 0, "").apply([[reply]], [{}])
    assert "".join(letter for letter in found if letter in "ABCDE") == read
    assert (letters(reply, ["甲状腺", "乙状结肠", "丙肝炎", "丁香"]) or "") == read
