"""`qilin eval`: baselines score what they must, a model what a forward pass by hand gives, and a killed run goes on."""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from qilin.evaluate.exam import read_items  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ("department", "discipline", "competency", "disease_group", "difficulty")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def row(source: str, number: int, answer: str, rng: random.Random) -> dict[str, Any]:
    words = ["发热", "咳嗽", "头痛", "乏力", "胸闷", "心悸", "恶心", "腹泻"]
    options = [f"{word}{number}" for word in rng.sample(words, 5)] if source == "cmexam" else []
    question = f"第{number}例{'，'.join(rng.choices(words, k=rng.randint(1, 8)))}<|end|>，首先考虑"
    empty = dict.fromkeys(FIELDS, "") | {"department": f"{number % 3}科"}
    own = {"id": f"{source}/{number}", "source": source, "kind": "exam" if options else "open", "question": question}
    return own | {"options": options, "answer": answer, "explanation": "因为如此", "messages": [], **empty}


def write_stage(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    """An eval stage as `chimed build` writes one."""
    folder.mkdir(parents=True)
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"options": pa.list_(pa.string()), "messages": pa.list_(turn)}
    files = {}
    for split, rows in splits.items():
        schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
        path = folder / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {"stage": "eval", "rows": {split: len(rows) for split, rows in splits.items()}, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 items in the shape of CMExam's test set, of which 3.2 % have several answers, 20 open ones, 30 to draw."""
    rng = random.Random(5)
    several = ["".join(chosen) for size in (2, 3, 4, 5) for chosen in itertools.combinations("ABCDE", size)]
    keys = [rng.choice(several) if number % 125 < 4 else rng.choice("ABCDE") for number in range(2000)]
    test = [row("cmexam", number, key, rng) for number, key in enumerate(keys)]
    test += [row("huatuo26m", number, f"多喝水，多休息{number}", rng) for number in range(20)]
    folder = tmp_path_factory.mktemp("stage") / "eval"
    shots = [row("cmexam", 5000 + number, rng.choice("ABCDE"), rng) for number in range(30)]
    write_stage(folder, {"test": test, "validation": shots})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama with a chat template and control tokens of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: n for n, c in enumerate([*marks, *alphabet])}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", extra_special_tokens=marks[1:]
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def start(folder: Path, recipe: dict[str, Any]) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    (folder / "eval.yaml").write_text(json.dumps({"stage": "eval", "output_dir": "run"} | recipe), encoding="utf-8")
    command = [sys.executable, "-m", "qilin.cli", "eval", "eval.yaml", "--json"]
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def scored(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    said, faults = start(folder, recipe).communicate()
    assert said, faults
    return dict(json.loads(said))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run/items.jsonl").read_text("utf-8").splitlines()]


def test_a_random_answerer_scores_chance(stage: Path, tmp_path: Path) -> None:
    found = scored(tmp_path, {"baseline": "random", "data": {"path": str(stage), "sets": ["cmexam/test"]}})
    methods = found["exam"]["cmexam/test"]["closed"]
    for method in ("sets", "generation"):
        accuracy = methods[method]["accuracy"]
        assert accuracy["n"] == 2000
        assert methods[method]["chance"] == pytest.approx(1 / 31)
        assert accuracy["low"] <= 1 / 31 <= accuracy["high"]
        assert 0.02 < accuracy["value"] < 0.045
    single = methods["letters"]
    assert single["chance"] == pytest.approx(0.968 / 5)
    assert single["accuracy"]["low"] <= single["chance"] <= single["accuracy"]["high"]


def test_a_constant_answerer_scores_what_the_key_says(stage: Path, tmp_path: Path) -> None:
    found = scored(tmp_path, {"baseline": "constant", "data": {"path": str(stage), "sets": ["cmexam/test"]}})
    key = [item.answer for item in read_items(stage, ["cmexam/test"])]
    for scores in found["exam"]["cmexam/test"]["closed"].values():
        assert scores["correct"] == key.count("A")


def test_an_oracle_is_always_right(stage: Path, tmp_path: Path) -> None:
    sets = ["cmexam/test", "huatuo26m/test"]
    found = scored(tmp_path, {"baseline": "oracle", "data": {"path": str(stage), "sets": sets}})
    methods = found["exam"]["cmexam/test"]["closed"]
    assert methods["sets"]["accuracy"]["value"] == methods["generation"]["accuracy"]["value"] == 1
    assert methods["letters"]["accuracy"]["value"] == pytest.approx(0.968)  # a single letter cannot be several
    assert methods["sets"]["groups"]["answers"]["1"]["n"] == 1936
    assert found["open"]["huatuo26m/test"]["closed"]["zh"]["values"]["rouge-1"] == pytest.approx(100)
    report = (tmp_path / "run/report.md").read_text("utf-8")
    assert "| baseline oracle | closed | sets | 100.0 (99.8 to 100.0) | 2000 |" in report
    assert "published, not measured" in report
    assert "published, not measured" in (tmp_path / "run/report.html").read_text("utf-8")


def test_a_reply_without_room_to_end_is_counted(stage: Path, model: Path, tmp_path: Path) -> None:
    data = {"path": str(stage), "sets": ["cmexam/test", "huatuo26m/test"], "rows": 6}
    said = {"model": {"path": str(model)}, "data": data, "exam": {"methods": ["generation"]}, "batch_size": 4}
    found = scored(tmp_path, said | {"max_new_tokens": 3})
    answers = [line["methods"]["generation"] for line in lines(tmp_path)]
    assert not any("\0" in answer["reply"] for answer in answers)
    cut = sum(answer.get("cut", False) for answer in answers)
    assert cut > 0
    scores = found["exam"]["cmexam/test"]["closed"]["generation"], found["open"]["huatuo26m/test"]["closed"]
    assert sum(own["cut"] for own in scores) == cut


def test_what_was_asked_stands_in_the_items(stage: Path, model: Path, tmp_path: Path) -> None:
    exam = {"methods": ["letters", "sets"], "shots": 2, "shots_from": "cmexam/validation"}
    data = {"path": str(stage), "sets": ["cmexam/test"], "rows": 5}
    found = scored(tmp_path, {"model": {"path": str(model)}, "data": data, "exam": exam, "batch_size": 3})
    own = lines(tmp_path)
    assert len(own) == 5
    assert len(own[0]["methods"]["sets"]["scores"]) == 31
    assert [turn["role"] for turn in own[0]["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    assert len(found["shots"]) == 2
    assert found["answerer"]["template"] == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert found["answerer"]["end"] == "<|end|>"


WRITTEN = ("items.jsonl", "result.json", "report.md", "report.html", "departments-cmexam-test.png")


def test_a_killed_run_ends_as_an_undisturbed_one(stage: Path, model: Path, tmp_path: Path) -> None:
    data = {"path": str(stage), "sets": ["cmexam/test", "huatuo26m/test"], "rows": 12}
    recipe = {"model": {"path": str(model)}, "data": data, "batch_size": 2, "max_new_tokens": 12}
    whole = scored(tmp_path / "whole", recipe)
    store = tmp_path / "killed/run/answers.sqlite"
    total, kills = stored(tmp_path / "whole/run/answers.sqlite"), 0
    for least in sorted(random.sample(range(1, total), 2)):
        process = start(tmp_path / "killed", recipe)
        while process.poll() is None and stored(store) < least:
            time.sleep(0.005)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert kills, "no run was killed on its way"
    assert scored(tmp_path / "killed", recipe) == whole
    same_files(tmp_path / "killed/run", tmp_path / "whole/run")


def same_files(one: Path, other: Path) -> None:
    for name in WRITTEN:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_run_that_breaks_off_anywhere_goes_on(
    stage: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the model, every commit to the store and every file is a place to break off at."""
    from qilin.evaluate import run
    from qilin.evaluate.model import Answerer
    from qilin.evaluate.recipe import Recipe

    data = {"path": str(stage), "sets": ["cmexam/test", "huatuo26m/test"], "rows": 5}
    said = {"stage": "eval", "model": {"path": str(model)}, "data": data, "batch_size": 1, "max_new_tokens": 4}
    places = {"asked": (Answerer, "answer"), "stored": (run, "_chunk"), "written": (run, "_write")}
    left, seen = 10**9, 0

    def breaking(what: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal left, seen
            found = what(*args)
            left, seen = left - 1, seen + 1
            if not left:
                raise KeyboardInterrupt
            return found

        return call

    for owner, name in places.values():
        monkeypatch.setattr(owner, name, breaking(getattr(owner, name)))

    def evaluated(folder: str) -> Path:
        return run.evaluate(Recipe.model_validate(said | {"output_dir": tmp_path / folder}))

    def answers(folder: str) -> int:
        return stored(tmp_path / folder / "answers.sqlite")

    evaluated("whole")
    count = seen
    assert count > 25
    recipe = json.loads((tmp_path / "whole/result.json").read_text("utf-8"))["recipe"]
    for place in range(1, count + 1, 2):
        left = place
        with pytest.raises(KeyboardInterrupt):
            evaluated("broken")
        before, left = answers("broken"), 10**9
        assert not (tmp_path / "broken/result.json").exists(), "a result without its files"
        evaluated("broken")
        assert answers("broken") == answers("whole") >= before
        again = json.loads((tmp_path / "broken/result.json").read_text("utf-8"))
        assert again.pop("recipe") == recipe | {"output_dir": str(tmp_path / "broken")}
        assert again == {
            key: value
            for key, value in json.loads((tmp_path / "whole/result.json").read_text()).items()
            if key != "recipe"
        }
        for name in set(WRITTEN) - {"result.json"}:
            assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
        shutil.rmtree(tmp_path / "broken")


def stored(path: Path) -> int:
    """How many answers are stored so far."""
    if not path.exists():
        return 0
    try:
        store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        return int(store.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or just being written
        return 0


def test_a_prompt_that_does_not_fit_is_a_failure(stage: Path, model: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for path in model.iterdir():
        (short / path.name).write_bytes(path.read_bytes())
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 290}))
    data = {"path": str(stage), "sets": ["cmexam/test"], "rows": 40}
    found = scored(tmp_path, {"model": {"path": str(short)}, "data": data, "exam": {"methods": ["letters"]}})
    scores = found["exam"]["cmexam/test"]["closed"]["letters"]
    assert 0 < scores["failures"] < 40
    assert scores["reasons"] == {"too long": scores["failures"]}
    assert scores["accuracy"]["n"] == 40


def test_likelihoods_that_are_no_numbers_are_failures(stage: Path, model: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    data = {"path": str(stage), "sets": ["cmexam/test"], "rows": 4}
    exam = {"methods": ["letters", "sets"]}
    found = scored(tmp_path, {"model": {"path": str(broken)}, "data": data, "exam": exam})
    for scores in found["exam"]["cmexam/test"]["closed"].values():
        assert scores["reasons"] == {"not a number": 4}
        assert scores["correct"] == 0


class Chat(BaseHTTPRequestHandler):
    """Answers every third question with B, every third with nonsense, and every third only when asked again."""

    seen: ClassVar[dict[str, int]] = {}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        number = int(text.partition("问题：第")[2].partition("例")[0])
        self.seen[text] = self.seen.get(text, 0) + 1
        choice = {"message": {"content": "答案是B"}, "finish_reason": "length" if number % 2 else "stop"}
        reply = {"choices": [choice]} if number % 3 else {"error": "overloaded"}
        self.send_response(503 if number % 3 == 1 and self.seen[text] == 1 else 200)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Chat) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/v1/chat/completions"
        serving.shutdown()


def test_a_server_is_asked_again_and_then_counted(stage: Path, server: str, tmp_path: Path) -> None:
    data = {"path": str(stage), "sets": ["cmexam/test"], "rows": 12}
    asked = {"url": server, "name": "m", "retries": 1, "timeout": 5}
    found = scored(tmp_path, {"server": asked, "data": data, "exam": {"methods": ["generation"]}})
    scores = found["exam"]["cmexam/test"]["closed"]["generation"]
    numbers = [int(line["id"].partition("/")[2]) for line in lines(tmp_path)]
    wrong = sum(number % 3 == 0 for number in numbers)
    assert scores["cut"] == sum(number % 3 > 0 and number % 2 == 1 for number in numbers)
    assert scores["reasons"] == {"no answer": wrong}
    assert scores["accuracy"]["n"] == 12
    assert scores["correct"] == sum(
        int(line["id"].partition("/")[2]) % 3 > 0 and line["answer"] == "B" for line in lines(tmp_path)
    )


def test_every_fault_of_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    recipe = {
        "baseline": "oracle",
        "model": {"path": "m", "dtyp": "float32"},
        "data": {"path": "out/eval", "sets": ["cmexam/test", "cmexam"], "rows": 0, "disciplines": {"c/test": ["a"]}},
        "exam": {"shots": 3, "shots_from": "cmexam/test"},
        "arms": ["rag"],
    }
    said, faults = start(tmp_path, recipe).communicate()
    assert not said
    for part in (
        "model.dtyp: unknown key; did you mean 'dtype'?",
        "give exactly one, found model and baseline",
        "found the set 'cmexam'",
        "data.disciplines: c/test is none of data.sets",
        "data.rows: input should be greater than 0",
        "cmexam/test is scored itself",
        "rag: is missing",
    ):
        assert part in faults
