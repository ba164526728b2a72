"""`push` with the real client of the Hub, against a small Hub on the loopback that can fail in every way it may."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from chimed.errors import BuildError
from chimed.publish.finished import finished
from chimed.publish.hub import Push, push

pytest.importorskip("huggingface_hub", reason="needs the hub extra: pip install -e '.[hub]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # the client itself uses what its own HTTP library deprecates

TOKEN = "hf_" + "secret" * 5
REPO = "someone/chimed"
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


class Hub(ThreadingHTTPServer):
    """One repository in memory. faults: (method and path as a pattern, what to do, how many times)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.objects: dict[str, bytes] = {}
        self.files: dict[str, dict[str, bytes]] = {}  # by commit
        self.commits: list[tuple[str, str]] = []  # (id, message)
        self.tags: dict[str, str] = {}
        self.private: bool | None = None  # None: no such repository
        self.faults: list[list[Any]] = []
        self.asked: list[str] = []

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def record(self, files: dict[str, bytes], message: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append((name, message))
        self.files[name] = files
        return name

    def sent(self) -> list[str]:
        return [line for line in self.asked if line.startswith("PUT ") or "/commit/" in line]

    def handle_error(self, *_: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        with self.server.lock:
            self.server.asked.append(line)
            fault = next((f for f in self.server.faults if f[2] and re.search(f[0], line)), None)
            if fault:
                fault[2] -= 1
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault[1] == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        body = self.rfile.read(length) if length else self._chunks()
        if fault and fault[1] != "lost":
            code, headers = fault[1] if isinstance(fault[1], tuple) else (fault[1], {})
            self.answer(code, {"error": "fault"}, headers)
            return
        if not path.startswith("/lfs/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return
        if fault:  # the answer is lost, what was asked is done
            self.answer = lambda *_: self.connection.close()  # type: ignore[method-assign, assignment]
            self.close_connection = True
        self.route(path, body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

    def _chunks(self) -> bytes:
        found = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return found

    def answer(self, code: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def route(self, path: str, body: bytes) -> None:
        hub, api = self.server, f"/api/datasets/{REPO}"
        if path == "/api/repos/create":
            hub.private = json.loads(body)["visibility"] == "private"
            hub.record({".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")
            self.answer(200, {"url": f"{hub.address}/datasets/{REPO}"})
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif path.startswith("/lfs/"):
            assert hashlib.sha256(body).hexdigest() == path[5:]
            hub.objects[path[5:]] = body
            self.answer(200, {})
        elif hub.private is None:
            self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif path == f"/datasets/{REPO}.git/info/lfs/objects/batch":
            self.answer(200, {"objects": [self._action(entry) for entry in json.loads(body)["objects"]]})
        elif path.startswith(f"/datasets/{REPO}/resolve/"):
            self._resolve(*path.removeprefix(f"/datasets/{REPO}/resolve/").split("/", 1))
        elif path.startswith(f"{api}/preupload/"):
            kinds = [
                (f["path"], "lfs" if f["path"].endswith(".parquet") else "regular") for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": [{"path": p, "uploadMode": kind, "shouldIgnore": False} for p, kind in kinds]})
        elif path.startswith(f"{api}/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
        elif path.startswith(f"{api}/tag/"):
            name = json.loads(body)["tag"]
            taken = name in hub.tags
            hub.tags.setdefault(name, path.rpartition("/")[2])
            self.answer(409 if taken else 200, {})
        elif path.startswith(f"{api}/tree/"):
            self._tree(path.removeprefix(f"{api}/tree/"))
        elif path.startswith(f"{api}/paths-info/"):
            wanted = parse_qs(body.decode())["paths"]
            self.answer(200, [entry for entry in self._entries() if entry["path"] in wanted])
        elif path.startswith(api):
            self.answer(200, {"id": REPO, "sha": hub.head, "private": hub.private})
        else:
            self.answer(404, {})

    def _action(self, entry: dict[str, Any]) -> dict[str, Any]:
        if entry["oid"] in self.server.objects:
            return entry
        return {**entry, "actions": {"upload": {"href": f"{self.server.address}/lfs/{entry['oid']}", "header": {}}}}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        hub = self.server
        header = lines[0]["value"]
        if header.get("parentCommit", hub.head) != hub.head:
            self.answer(412, {"error": "the repository has changed"})
            return
        files = dict(hub.files[hub.head])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del files[value["path"]]
        oid = hub.record(files, header["summary"])
        self.answer(200, {"commitUrl": f"{hub.address}/datasets/{REPO}/commit/{oid}", "commitOid": oid})

    def _entries(self) -> list[dict[str, Any]]:
        found = []
        for path, data in self.server.files[self.server.head].items():
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"type": "file", "path": path, "size": len(data), "oid": oid}
            if path.endswith(".parquet"):
                entry["oid"] = "0" * 40  # git's name of the pointer
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            found.append(entry)
        return found

    def _tree(self, rest: str) -> None:
        folder = rest.partition("/")[2]
        entries = [e for e in self._entries() if e["path"].startswith(f"{folder}/" if folder else "")]
        if "recursive=true" not in self.path.lower():
            depth = folder.count("/") + 1 if folder else 0
            parts = {"/".join(e["path"].split("/")[: depth + 1]) for e in entries if e["path"].count("/") > depth}
            entries = [e for e in entries if e["path"].count("/") == depth]
            entries += [{"type": "directory", "path": part, "oid": "0" * 40, "size": 0} for part in sorted(parts)]
        self.answer(200, entries)

    def _resolve(self, revision: str, path: str) -> None:
        hub = self.server
        data = hub.files[hub.head].get(path)
        if data is None:
            self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": hub.head, "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self.answer(200, data, headers)
            return
        first, last = int(part[1]), min(int(part[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.answer(206, data[first : last + 1], headers)


@pytest.fixture(scope="module")
def built(chimed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("push") / "out"
    done = chimed("build", "--stage", "all", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the client, which are not waited for."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]) -> Iterator[Hub]:
    import huggingface_hub

    for name in [name for name in os.environ if name.lower() in PROXIES]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join(5)


class Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


def send(out: Path, waits: list[float] | None = None, **more: Any) -> Any:
    request = Push(out, REPO, **{"token": TOKEN, "allowed": None, **more})
    return push(request, Silent(), (waits if waits is not None else []).append)


def local(out: Path) -> dict[str, bytes]:
    paths = [path for stage in finished(out) for path in stage.folder.iterdir()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def remote(hub: Hub) -> dict[str, bytes]:
    return {path: data for path, data in hub.files[hub.head].items() if "/" in path}


def test_a_build_is_pushed_whole_and_once(hub: Hub, built: Path) -> None:
    done = send(built)
    assert remote(hub) == local(built)
    assert (done.private, hub.private, done.deleted, done.present) == (True, True, (), 0)
    assert done.uploaded.keys() == {*local(built), "README.md"}
    assert hub.tags == {done.tag: done.commit}
    digest = json.loads((built / "sft" / "manifest.json").read_text())["digest"]
    assert f"sft {digest[:12]}" in hub.commits[-1][1]
    sent, commits = hub.sent(), len(hub.commits)
    again = send(built)
    assert (again.uploaded, again.present, again.commit) == ({}, len(done.uploaded), done.commit)
    assert (hub.sent(), len(hub.commits)) == (sent, commits)


def test_a_dry_run_changes_nothing(hub: Hub, built: Path) -> None:
    done = send(built, dry_run=True)
    assert done.uploaded.keys() == {*local(built), "README.md"}
    assert (done.commit, hub.private, hub.sent()) == ("", None, [])


def test_shards_of_an_earlier_build_go_and_other_files_stay(hub: Hub, built: Path) -> None:
    first = send(built)
    files = hub.files[hub.head]
    files |= {"sft/train-00001-of-00002.parquet": b"old", "notes/mine.md": b"mine", "sft/mine.md": b"mine"}
    done = send(built)
    assert (done.deleted, done.uploaded) == (("sft/train-00001-of-00002.parquet",), {})
    assert hub.files[hub.head].keys() - {"README.md", ".gitattributes", *local(built)} == {
        "notes/mine.md",
        "sft/mine.md",
    }
    assert hub.tags == {first.tag: first.commit}


PASSING = {
    "429, told how long": ("/batch", (429, {"Retry-After": "3"}), 1),
    "429 on the commit": ("/commit/", (429, {"Retry-After": "3"}), 1),
    "500 on an object": ("PUT", 500, 2),
    "500 on the tree": ("/tree/", 500, 2),
    "502 on the tag": ("/tag/", 502, 1),
    "503 on the repository": ("/repos/create", 503, 2),
    "500 on the card": ("/validate-yaml", 500, 1),
    "an object cut off": ("PUT", "cut", 2),
    "the commit cut off": ("/commit/", "cut", 1),
    "the answer to the commit lost": ("/commit/", "lost", 1),
    "the answer to the tag lost": ("/tag/", "lost", 1),
    "changed meanwhile": ("/commit/", 412, 1),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_passed_over(hub: Hub, built: Path, waits: list[float], fault: str) -> None:
    hub.faults.append(list(PASSING[fault]))
    own: list[float] = []
    done = send(built, own)
    assert remote(hub) == local(built)
    assert hub.faults[0][2] == 0
    assert hub.tags == {done.tag: hub.head}
    assert len(hub.commits) == 2  # the first, and one for the build
    if "429" in fault:
        assert max(waits + own) >= 3


LASTING = {
    "401": ("", 401, "knows no such token (401)"),
    "403 on the repository": ("/repos/create", 403, "may not write there (403)"),
    "403 on the commit": ("/commit/", 403, "may not write there (403)"),
    "404": ("/repos/create", 404, "not found (404)"),
    "400": ("/commit/", 400, "answered 400"),
    "500": ("/batch", 500, "answered 500, 4 times"),
    "429": ("/commit/", (429, {"Retry-After": "1"}), "answered 429, 4 times"),
    "cut": ("PUT", "cut", "could not be reached ("),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_lasts_is_one_sentence_and_the_same_command_goes_on(hub: Hub, built: Path, fault: str) -> None:
    pattern, what, told = LASTING[fault]
    hub.faults.append([pattern, what, -1])
    with pytest.raises(BuildError) as caught:
        send(built)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert TOKEN not in message
    assert message.endswith(f"chimed push {built} --repo {REPO} --any-licence")
    before = set(hub.objects)
    hub.faults, hub.asked = [], []
    send(built)
    assert remote(hub) == local(built)
    assert not {line.removeprefix("PUT /lfs/") for line in hub.asked if line.startswith("PUT")} & before


def test_a_token_of_no_use_is_told_without_showing_it(hub: Hub, built: Path) -> None:
    with pytest.raises(BuildError, match=r"knows no such token \(401\)") as caught:
        send(built, token="hf_wrongwrong")
    assert "hf_wrong" not in str(caught.value)


def test_a_repository_that_everyone_reads_needs_a_word(hub: Hub, built: Path) -> None:
    assert send(built, public=True).private is False
    with pytest.raises(BuildError, match="everyone can read it; make it private in its settings, or add --public"):
        send(built)


LOAD = """
import json, sys
from datasets import load_dataset
for stage in ("cpt", "sft", "dpo"):
    plain = load_dataset(sys.argv[1], stage, split="train")
    stream = load_dataset(sys.argv[1], stage, split="train", streaming=True)
    own = load_dataset("parquet", data_files=sys.argv[2] + f"/{stage}/train-*.parquet", split="train")
    assert plain.to_list() == own.to_list() == list(stream), stage
    print(stage, len(plain))
"""


def test_datasets_loads_what_was_pushed(hub: Hub, built: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the hub extra: pip install -e '.[hub]'")
    send(built)
    own = {"HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", LOAD, REPO, str(built)]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["cpt", "sft", "dpo"]
