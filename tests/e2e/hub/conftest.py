"""A small Hub on the loopback for the real client: one repository in memory, that can fail in every way it may."""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

TOKEN = "hf_" + "secret" * 5
REPO = "someone/chimed"
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


class Hub(ThreadingHTTPServer):
    """One repository in memory. faults: (method and path as a pattern, what to do, how many times)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
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
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join(5)
