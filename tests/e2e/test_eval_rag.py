"""`qilin index`, then `qilin eval` with passages, as commands: hits, citations, leaks, copies and the report."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")
pytest.importorskip("tantivy", reason="needs the eval extra: pip install -e '.[eval]'")
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).resolve().parents[2]
DRUGS = ["阿司匹林", "青霉素", "地高辛", "胰岛素", "利福平", "甲硝唑", "华法林", "硝酸甘油"]
SIGNS = ["高热寒战", "咯血盗汗", "心悸气促", "多饮多尿", "胸骨后痛", "腹泻血便", "肢体麻木", "皮肤紫癜"]
PLACES = ["藏族牧区", "沿海渔村", "矿山工地", "高原哨所", "山地林场"]
ITEMS = 40


def sign(number: int) -> str:
    return f"{PLACES[number // 8]}的{SIGNS[number % 8]}"


def drug(number: int) -> str:
    return DRUGS[(number + number // 8) % 8]


def exam(number: int) -> dict[str, Any]:
    """An item: even ones have a passage about them in other words, every fifth one stands in a leaked passage."""
    right = drug(number)
    options = [right, *[name for name in DRUGS if name != right][:3]]
    options = options[number % 4 :] + options[: number % 4]
    own = {"id": f"cmexam/{number}", "source": "cmexam", "kind": "exam", "question": question(number)}
    own |= {"options": options, "answer": "ABCD"[options.index(right)], "explanation": f"{sign(number)}用{right}治疗。"}
    return own | {"messages": [], "department": f"{number % 3}科", "discipline": "", "competency": ""} | REST


REST = {"disease_group": "", "difficulty": ""}


def question(number: int) -> str:
    return f"某患者来自外地，因{sign(number)}三天入院治疗，体温三十九度，除对症处理以外，目前首先应当选用的药物是哪一种"


def consultation(number: int) -> dict[str, Any]:
    asked = f"我有{sign(number)}，该怎么办？"
    blank = dict.fromkeys(("explanation", "department", "discipline", "competency", *REST), "")
    own = {"id": f"huatuo26m/{number}", "source": "huatuo26m", "kind": "open", "question": asked, "options": []}
    return own | {"answer": f"可用{drug(number)}，并休息。", "messages": []} | blank


def write(folder: Path, stage: str, rows: list[dict[str, Any]], split: str) -> Path:
    """A stage as `chimed build` writes one."""
    folder.mkdir(parents=True)
    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"options": pa.list_(pa.string()), "messages": pa.list_(turn), "part": pa.int32()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    path = folder / f"{split}-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"stage": stage, "rows": {split: len(rows)}, "files": files}))
    return folder


def passages() -> list[dict[str, Any]]:
    """Of even items one in other words, under two titles from two sources; of every fifth the item itself; filler."""
    found: list[tuple[str, str, str]] = []
    for number in range(ITEMS):
        if number % 2 == 0:
            text = f"{sign(number)}多由感染引起，一线药物为{drug(number)}，疗程两周，需复查肝肾功能。"
            found += [("book", "诊疗", text), ("web", "问答<b>", text.replace("，", ","))]
        if number % 5 == 0:
            found.append(("forum", "真题", f"{question(number)}？答案：{drug(number)}。"))
    found += [("book", "总论", f"{place}的居民应定期体检，保持清淡饮食。") for place in PLACES]
    return [
        {"id": f"{source}/{number}@0", "source": source, "title": title, "text": text, "part": 0}
        for number, (source, title, text) in enumerate(found)
    ]


class Chat(BaseHTTPRequestHandler):
    """Gives the answer of the first passage that names exactly one drug; else B. Cites, and sometimes makes it up."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        shown, _, asked = text.rpartition("问题：")
        named = [name for name in DRUGS if name in shown]
        letters = {line[3:]: line[0] for line in asked.splitlines() if line[1:2] == "."}
        if not letters:
            reply = "建议就诊[1]，另见资料7。" if "[1]" in shown or "[1]" in text else "建议就诊。"
        elif len(named) == 1 and named[0] in letters:
            reply = f"答案：{letters[named[0]]}【1】"
        else:
            reply = "答案：B"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Chat) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/v1/chat/completions"
        serving.shutdown()


def command(folder: Path, *words: str) -> str:
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "qilin.cli", *words], cwd=folder, env=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluated(folder: Path, server: str, name: str, **rag: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    recipe = {
        "stage": "eval",
        "server": {"url": server, "name": "m"},
        "data": {"path": "eval", "sets": ["cmexam/test", "huatuo26m/test"]},
        "exam": {"methods": ["generation"]},
        "rag": {"index": "index", "k": 2, **rag},
        "arms": ["closed", "rag", "oracle", "random"],
        "output_dir": name,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    result = json.loads(command(folder, "eval", f"{name}.yaml", "--json"))
    lines = (folder / name / "items.jsonl").read_text("utf-8").splitlines()
    return result, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the eval stage and the index of the rag stage."""
    place = tmp_path_factory.mktemp("rag")
    items = [exam(number) for number in range(ITEMS)] + [consultation(number) for number in range(0, ITEMS, 4)]
    write(place / "eval", "eval", items, "test")
    write(place / "rag", "rag", passages(), "train")
    told = json.loads(command(place, "index", "rag", "--eval", "eval", "--out", "index", "--json"))
    assert sum(told["leaked"].values()) == ITEMS // 5
    return place


Run = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def clean(folder: Path, server: str) -> Run:
    """The result and the items of a run that searches no leaked passage."""
    return evaluated(folder, server, "clean")


def test_passages_help_where_they_hold_the_answer(clean: Run) -> None:
    result, lines = clean
    assert result["index"]["passages"] == len(passages())
    rag = result["passages"]["exam"]["cmexam/test"]["rag"]
    exams = [line for line in lines if line["set"] == "cmexam/test"]
    own = {line["id"]: line for line in exams if line["arm"] == "rag"}
    texts = {row["id"]: row["text"] for row in passages()}
    for number in range(ITEMS):
        line = own[f"cmexam/{number}"]
        assert not any(id_.startswith("forum/") for id_ in line["passages"])  # those that hold items stay out
        assert len({texts[id_].replace(",", "，") for id_ in line["passages"]}) == len(line["passages"])  # no copies
        assert line["hit"] == any(drug(number) in texts[id_] for id_ in line["passages"])
        if number % 2 == 0:
            assert line["hit"], number
    hits = [line["methods"]["generation"]["correct"] for line in own.values() if line["hit"]]
    part = rag["accuracy"]["generation"]["hit"]
    assert rag["hits"]["n"] == ITEMS
    assert part["accuracy"]["n"] == len(hits)
    assert part["accuracy"]["value"] == pytest.approx(sum(hits) / len(hits))
    closed = {line["id"]: line["methods"]["generation"]["correct"] for line in exams if line["arm"] == "closed"}
    beside = [closed[line["id"]] for line in own.values() if line["hit"]]
    assert part["closed"]["value"] == pytest.approx(sum(beside) / len(beside))
    oracle = result["exam"]["cmexam/test"]["oracle"]["generation"]
    assert oracle["accuracy"]["value"] == 1  # the explanation names the drug
    assert result["arms"]["cmexam/test"]["oracle against closed"]["generation"]["p"] < 0.01
    assert "random against rag" in result["arms"]["cmexam/test"]
    assert not any(line["hit"] for line in lines if line["arm"] == "closed")


def test_citations_are_checked_against_what_was_shown(clean: Run) -> None:
    result, lines = clean
    open_ = result["passages"]["open"]["huatuo26m/test"]["rag"]
    assert open_["replies"] == ITEMS // 4
    assert (open_["cited"]["value"], open_["unknown"]["value"]) == (1, 1)
    line = next(line for line in lines if line["set"] == "huatuo26m/test" and line["arm"] == "rag")
    assert line["methods"]["generation"]["cited"] == line["passages"][:1]
    assert line["methods"]["generation"]["unknown"] == [7]
    exams = result["passages"]["exam"]["cmexam/test"]["rag"]
    own = [line["methods"]["generation"] for line in lines if line["set"] == "cmexam/test" and line["arm"] == "rag"]
    assert exams["cited"]["value"] == pytest.approx(sum(bool(one["cited"]) for one in own) / len(own))
    assert 0 < exams["cited"]["value"] < 1
    assert exams["unknown"]["value"] == 0


def test_leaked_passages_give_answers_away_where_they_are_let_in(folder: Path, server: str, clean: Run) -> None:
    leaky = evaluated(folder, server, "leaky", leaked=True)
    given = {f"cmexam/{number}" for number in range(5, ITEMS, 10)}  # whose drug stands in no other passage
    for (_, lines), expected in ((clean, 0), (leaky, len(given))):
        own = [line for line in lines if line["arm"] == "rag" and line["id"] in given]
        assert sum(line["hit"] for line in own) == expected
        assert sum(any(id_.startswith("forum/") for id_ in line["passages"]) for line in own) == expected
    first, second = clean[0], leaky[0]
    assert first["recipe_sha256"] != second["recipe_sha256"]
    assert first["exam"]["cmexam/test"]["closed"] == second["exam"]["cmexam/test"]["closed"]
    assert first["exam"]["cmexam/test"]["random"] == second["exam"]["cmexam/test"]["random"]  # drawn without leaks


def test_the_report_shows_arms_hits_citations_and_plots(folder: Path, clean: Run) -> None:
    result, _ = clean
    told = (folder / "clean/report.md").read_text("utf-8")
    page = (folder / "clean/report.html").read_text("utf-8")
    for title in ("arms compared", "accuracy given hit and given miss", "citations", "accuracy by department"):
        assert f"## cmexam/test: {title}" in told
        assert f"cmexam/test: {title}</h2>" in page
    assert "## huatuo26m/test: citations" in told
    assert "published, not measured" in page
    assert result["index"]["sha256"][:16] in page
    for name in ("arms-cmexam-test.png", "departments-cmexam-test.png"):
        assert (folder / "clean" / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in told
    assert page.count("data:image/png;base64,") == 2
