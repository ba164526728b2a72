"""`qilin ask`: one question on the terminal and on the page, with citations that are checked, and nothing that runs."""

import base64
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")
pytest.importorskip("tantivy", reason="needs the eval extra: pip install -e '.[eval]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from qilin.ask import NOTE, Answered, Part, Shown, show  # noqa: E402
from qilin.errors import DataError  # noqa: E402
from qilin.rag.index import build  # noqa: E402
from qilin.web import MOST, Server, open_server, page  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
REPLY = "痉咳见于小儿【1】，另见资料7。<script>alert(1)</script>"
HOSTILE = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
PASSAGES = {
    "book/1@0": ("百日咳", f"百日咳的痉咳期多见于小儿，咳嗽末有鸡鸣样吼声。{HOSTILE}\x1b[31m"),
    "book/2@0": ("感冒", "感冒应多饮水，注意休息。"),
    "copy/1@0": ("抄本", f"百日咳的痉咳期, 多见于小儿。咳嗽末有鸡鸣样吼声！{HOSTILE}"),
    "book/3@0": ("高血压", "高血压患者应低盐饮食，按时服药。"),
}
QUESTION = "百日咳的痉咳期有什么表现<|end|>？"
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of PASSAGES."""
    folder = tmp_path_factory.mktemp("data")
    rag = folder / "rag"
    rag.mkdir()
    rows = [{"id": id_, "source": "book", "title": title, "text": text} for id_, (title, text) in PASSAGES.items()]
    file = rag / "train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    (rag / "manifest.json").write_text(json.dumps({"stage": "rag", "rows": {"train": len(rows)}, "files": files}))
    build(rag, folder / "index")
    return folder / "index"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that replies REPLY to everything: its layers add nothing, its head maps a token to the next."""
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
    tokenizer.add_tokens([REPLY])
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, initializer_range=1.0, **sizes)
    llama = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in llama.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        llama.lm_head.weight.zero_()
        line, reply, end = (tokenizer.encode(text)[0] for text in ("\n", REPLY, "<|end|>"))
        for before, after in ((line, reply), (reply, end)):
            llama.lm_head.weight[after] = llama.model.embed_tokens.weight[before]
    folder = tmp_path_factory.mktemp("model")
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "qilin.cli", "ask", *map(str, arguments)]


def ask(*arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
    where = os.environ | {"PYTHONPATH": str(ROOT)} | more
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, cwd=ROOT, env=where)


def test_a_question_is_answered_with_checked_citations(model: Path, index: Path) -> None:
    done = ask(model, QUESTION, "--index", index, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reply"] == REPLY
    assert found["mode"] == "bm25"
    assert found["cited"] == ["book/1@0"]
    assert found["unknown"] == [7]
    assert "".join(part["text"] for part in found["parts"]) == REPLY
    assert [(part["text"], part["numbers"], part["unknown"]) for part in found["parts"][1::2]] == [
        ("1", [1], []),
        ("7", [], [7]),
    ]
    first = found["passages"][0]
    assert (first["number"], first["id"], first["source"], first["title"]) == (1, "book/1@0", "book", "百日咳")
    assert first["cited"]
    assert HOSTILE in first["text"]
    assert "copy/1@0" not in [passage["id"] for passage in found["passages"]]  # it says nothing new
    assert not found["unfinished"]
    assert found["note"] == NOTE


def test_the_terminal_shows_passages_reply_citations_and_note() -> None:
    shown = (
        Shown(1, "book/1@0", "book", "百日咳", "痉咳\x1b[31m期\n多见于\u202e小儿", True),
        Shown(2, "book/2@0", "book", "", "多饮水", False),
    )
    parts = (Part("见["), Part("1", (1,)), Part("]、["), Part("7", (), (7,)), Part("]、["), Part("1-9", (1, 2), (9,)))
    found = Answered("问", "bm25", "", (*parts, Part("]\x9b2J。")), shown, ("book/1@0",), (7, 9))
    assert show(found) == "\n".join(
        [
            "Passages (bm25):",
            "  [1] 百日咳 · book · book/1@0",
            "      痉咳[31m期",
            "      多见于小儿",
            "  [2]  · book · book/2@0",
            "      多饮水",
            "\nReply:",
            "  见[1]、[7 (not shown)]、[1-9 (not shown: 9)]2J。",
            "\nCited:",
            "  [1] 百日咳 · book · book/1@0",
            "  not shown, so made up: 7, 9",
            f"\n{NOTE}",
        ]
    )
    assert "(cut off after 512 tokens)\n\nCited:" in show(replace(found, unfinished=True))


def test_bad_input_is_one_sentence(model: Path, index: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for path in model.iterdir():
        (short / path.name).write_bytes(path.read_bytes())
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 600}))
    for arguments, sentence in (
        ((model, "--index", index), "qilin ask: give a question, or --web, and not both"),
        ((model, QUESTION, "--web", "--index", index), "qilin ask: give a question, or --web, and not both"),
        ((model, QUESTION, "--index", tmp_path), f"{tmp_path} is no index; build one with `qilin index DATA"),
        ((model, QUESTION, "--index", index, "--mode", "dense"), "has no vectors for the mode dense"),
        ((tmp_path, QUESTION, "--index", index), f"{tmp_path}: has no config.json"),
        ((model, " ", "--index", index), "the question is empty or no text"),
        ((short, QUESTION, "--index", index), "do not fit the 600 tokens of"),
    ):
        done = ask(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert done.stderr.startswith("qilin: ")
        assert len(done.stderr.splitlines()) == 1
        assert sentence in done.stderr


def test_a_missing_package_is_named(model: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['lm_eval'] = None\n")
    done = ask(model, QUESTION, "--index", index, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert done.stderr == "qilin: this needs the package lm-eval, which is not installed: pip install 'chimed[eval]'\n"


@pytest.fixture(scope="module")
def serving(model: Path, index: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    where = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = command(model, "--index", index, "--web", "--port", 0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background hand down "ignored"
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=where
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout
        address = process.stdout.readline()
        assert address.startswith("http://127.0.0.1:"), process.communicate()
        yield process, int(address.split()[0].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def send(
    port: int, method: str, path: str, body: bytes | str | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body.encode() if isinstance(body, str) else body, named)
    response = connection.getresponse()
    return response.status, dict(response.headers), response.read().decode()


JSON = {"Content_Type": "application/json"}
BODY = json.dumps({"question": QUESTION})


class Browser:
    """A headless Chromium, spoken to over a pipe in its DevTools protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self._ask, answers, ours = (*os.pipe(), *os.pipe())
        # Chromium reads from 3 and writes to 4; copies with high numbers make room for these.
        code = "import fcntl, os, sys\nends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]\n"
        code += "os.dup2(ends[0], 3)\nos.dup2(ends[1], 4)\nos.execvp(sys.argv[3], sys.argv[3:])"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs), str(ours), program, *options, f"--user-data-dir={profile}"],
            pass_fds=(theirs, ours),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._answers = os.fdopen(answers, "rb")
        self._number, self._session = 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: object) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(
            self._ask, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while True:
            said = b""
            while not said.endswith(b"\0"):
                said += (byte := self._answers.read(1))
                assert byte, "the browser is gone"
            answer = json.loads(said[:-1])
            if answer.get("id") == self._number:
                return answer["result"]

    def value(self, code: str) -> Any:
        return self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)["result"]["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ask)
        self._answers.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("no browser: install chromium to see the page as it does")
    opened = Browser(program, tmp_path)
    yield opened
    opened.close()


def test_markup_in_passages_and_replies_is_inert(browser: Browser, serving: tuple[Any, int]) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    browser.call("Page.enable")
    browser.call("Page.navigate", url=f"http://127.0.0.1:{serving[1]}/")
    begun = time.monotonic()
    while not browser.value("document.readyState == 'complete' && !!document.getElementById('send')"):
        assert time.monotonic() - begun < 60
        time.sleep(0.1)
    ask = f"document.getElementById('question').value = {json.dumps(QUESTION)}; document.getElementById('send').click()"
    browser.value(f"{ask}; 0")
    while browser.value("document.getElementById('answer').hidden"):
        assert time.monotonic() - begun < 120
        time.sleep(0.1)
    assert browser.value("document.title") == "qilin ask"
    assert browser.value("document.querySelectorAll('main script, main img').length") == 0
    assert browser.value("document.getElementById('reply').textContent.replace('not shown', '')") == REPLY
    assert HOSTILE in browser.value("document.getElementById('passages').textContent")
    links = "[...document.querySelectorAll('#reply a')].map(link => [link.textContent, link.getAttribute('href')])"
    assert browser.value(links) == [["1", "#passage-1"]]
    assert browser.value("document.querySelector('#reply .unknown').textContent") == "7"
    assert "book · book/1@0" in browser.value("document.getElementById('cited').textContent")
    assert browser.value("document.documentElement.scrollWidth") == 360, "nothing stands beyond a narrow screen"
    note = browser.value("(box => [box.top >= 0, box.bottom <= innerHeight])(note.getBoundingClientRect())")
    assert note == [True, True]


def test_the_page_answers_and_ends(serving: tuple["subprocess.Popen[str]", int], model: Path, index: Path) -> None:
    process, port = serving
    status, headers, text = send(port, "GET", "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert NOTE in text
    assert str(index) in text
    assert "http" not in text, "the page names nothing outside"
    for tag in ("script", "style"):
        own = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in headers["Content-Security-Policy"]
    status, headers, text = send(port, "POST", "/ask", BODY, **JSON)
    assert status == 200, text
    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("application/json", "nosniff")
    assert json.loads(text)["cited"] == ["book/1@0"]
    for question in ("", " \n", "\ud800"):
        status, _, text = send(port, "POST", "/ask", json.dumps({"question": question}), **JSON)
        assert status == 400
        assert "empty or no text" in json.loads(text)["error"]
    process.send_signal(signal.SIGINT)
    said, faults = process.communicate(timeout=30)
    assert (process.returncode, said, faults) == (0, "\nstopped\n", "")


@pytest.fixture
def held() -> Iterator[tuple[Server, threading.Event, threading.Event]]:
    """A server whose answers wait for the second event and set the first when they begin."""
    begun, go = threading.Event(), threading.Event()

    def answer(question: str) -> Answered:
        begun.set()
        assert go.wait(60)
        if question == "bad":
            raise DataError("<b>bad</b>")
        return Answered(question, "bm25", "多饮水", (Part("多饮水"),), (), (), ())

    with open_server("m", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def work() -> None:
            while True:
                server.answer(answer)

        threading.Thread(target=work, daemon=True).start()
        yield server, begun, go
        go.set()
        server.shutdown()


def test_one_question_at_a_time(held: tuple[Server, threading.Event, threading.Event]) -> None:
    server, begun, go = held
    port = server.server_port
    first: list[tuple[int, dict[str, str], str]] = []
    thread = threading.Thread(target=lambda: first.append(send(port, "POST", "/ask", BODY, **JSON)))
    thread.start()
    assert begun.wait(60)
    status, _, text = send(port, "POST", "/ask", BODY, **JSON)
    assert status == 503
    assert "another question is being answered" in text
    assert send(port, "GET", "/")[0] == 200
    go.set()
    thread.join(60)
    assert first[0][0] == 200
    status, _, text = send(port, "POST", "/ask", json.dumps({"question": "bad"}), **JSON)
    assert (status, json.loads(text)) == (400, {"error": "<b>bad</b>"})


def test_requests_of_others_are_turned_away(held: tuple[Server, threading.Event, threading.Event]) -> None:
    server, _, go = held
    go.set()
    port = server.server_port
    assert server.server_address[0] == "127.0.0.1"
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        assert send(port, "GET", "/", Host=host)[0] == 200
        assert send(port, "POST", "/ask", BODY, Host=host, Origin=f"http://{host}", **JSON)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "localhost", f"127.0.0.1.evil.example:{port}", ""):
        assert send(port, "GET", "/", Host=host)[0] == 403
        assert send(port, "POST", "/ask", BODY, Host=host, **JSON)[0] == 403
    for origin in ("http://evil.example", "null", f"https://localhost:{port}"):
        assert send(port, "POST", "/ask", BODY, Origin=origin, **JSON)[0] == 403
    assert send(port, "POST", "/ask", BODY, Content_Type="text/plain")[0] == 415
    assert send(port, "POST", "/ask", b" " * (MOST + 1), **JSON)[0] == 413
    assert send(port, "POST", "/ask", None, Transfer_Encoding="chunked", **JSON)[0] == 413
    for body in ("", "[]", "{", '{"question": 1}', "[" * 5000, b"\xff"):
        assert send(port, "POST", "/ask", body, **JSON)[0] == 400
    assert send(port, "GET", "/ask.py")[0] == 404
    assert send(port, "POST", "/", BODY, **JSON)[0] == 404
    assert send(port, "DELETE", "/")[0] == 501


def test_a_taken_port_is_one_sentence(held: tuple[Server, threading.Event, threading.Event]) -> None:
    from qilin.errors import RunError

    port = held[0].server_port
    with pytest.raises(RunError, match=f"port {port} of 127.0.0.1 cannot be used .*; give another with --port"):
        open_server("m", port)


def test_what_stands_in_the_page_is_escaped() -> None:
    assert "<script>evil" not in page("<script>evil</script>")
    assert "&lt;script&gt;evil" in page("<script>evil</script>")
