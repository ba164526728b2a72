"""Downloads from servers on the loopback that answer as servers do: cut off, busy, moved, lying."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from chimed.errors import SourceError
from chimed.sources import discover
from chimed.sources.fetch import Fetched, check, fetch
from chimed.sources.origins import HUB, Origin, Remote

CMEXAM = discover()["cmexam"]
TOKEN = "hf_" + "secret" * 5
PATH = "/datasets/a/b/resolve/main/x.csv"
DATA = b"".join(b"%d,what is the %d-th answer?,A\n" % (n, n) for n in range(60_000))


@dataclass
class Shelf:
    """A server's files, its faults by path (each is used up once), and the requests it got."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Any]] = field(default_factory=dict)
    ranges: bool = True
    strong: bool = True
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def asked(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    server: "Server"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        shelf = self.server.shelf
        shelf.seen.append((self.path, dict(self.headers)))
        queue = shelf.faults.get(self.path, [])
        fault = queue.pop(0) if queue else None
        if self.path.startswith("http://"):  # as a proxy is asked
            self._answer(200, {"Content-Type": "text/csv"}, b"by proxy")
        elif isinstance(fault, tuple):
            self._answer(fault[0], fault[1], b"no")
        elif self.path not in shelf.files:
            self._answer(404, {}, b"no")
        else:
            self._send(shelf, shelf.files[self.path], fault)

    def _send(self, shelf: Shelf, data: bytes, cut: int | None) -> None:
        etag = f'{"" if shelf.strong else "W/"}"{hashlib.md5(data).hexdigest()}"'
        wanted = self.headers.get("Range", "")
        start = int(wanted[6:-1]) if wanted and shelf.ranges and self.headers.get("If-Range") == etag else 0
        headers = {"ETag": etag, "Content-Type": "text/html" if self.path.endswith("/login") else "text/csv"}
        if start and start >= len(data):
            self._answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(206 if start else 200, headers, data[start:], cut)

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.shelf = Shelf(url=f"http://127.0.0.1:{self.server_port}")


@pytest.fixture
def serve() -> Iterator[Callable[[], Shelf]]:
    running = []

    def start() -> Shelf:
        server = Server()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server.shelf

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def shelf(serve: Callable[[], Shelf]) -> Shelf:
    shelf = serve()
    shelf.files["/x.csv"] = DATA
    return shelf


@pytest.fixture
def hub(serve: Callable[[], Shelf], monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A mirror of the Hub, and a token for it."""
    hub = serve()
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/hf/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "HF_ENDPOINT",
        "HF_TOKEN",
    ):
        monkeypatch.delenv(name, raising=False)


class Once:
    """One download of /x.csv into a raw folder, its waits and its progress noted instead of waited for and shown."""

    def __init__(self, raw: Path, url: str, sha256: str = "") -> None:
        self.raw, self.origin = raw, Origin((Remote(url, "data/x.csv", sha256),))
        self.file = raw / "cmexam" / "data" / "x.csv"
        self.waits: list[float] = []
        self.steps: list[tuple[str, int]] = []
        self.advanced = 0

    def __call__(self) -> Fetched:
        (got,) = fetch(replace(CMEXAM, origin=self.origin), self.raw, self._step, self.waits.append)
        return got

    def _step(self, name: str, total: int) -> Callable[[int], None]:
        self.steps.append((name, total))
        return self._advance

    def _advance(self, amount: int) -> None:
        self.advanced += amount

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.raw.rglob("*") if path.is_file()}


def test_a_file_is_fetched_once(shelf: Shelf, tmp_path: Path) -> None:
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    got = once()
    assert (got.state, got.size, got.sha256) == ("fetched", len(DATA), hashlib.sha256(DATA).hexdigest())
    assert once.file.read_bytes() == DATA
    assert (once.steps, once.advanced) == ([("cmexam/x.csv", len(DATA))], len(DATA))
    record = json.loads((tmp_path / "cmexam" / ".fetched.json").read_text())["data/x.csv"]
    assert record["url"] == f"{shelf.url}/x.csv"
    assert (record["sha256"], record["bytes"], record["license"]) == (got.sha256, len(DATA), "Apache-2.0")
    assert record["date"].endswith("GMT")
    assert once.files == {"x.csv", ".fetched.json"}
    assert once().state == "present"
    assert len(shelf.seen) == 1


def test_a_cut_file_goes_on_where_it_was_cut(shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [300_000, 500_000]
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    assert once().state == "fetched"
    assert once.file.read_bytes() == DATA
    assert shelf.asked("Range") == [None, "bytes=300000-", "bytes=800000-"]
    assert (len(once.steps), once.advanced) == (1, len(DATA))


@pytest.mark.parametrize("held", [300_000, len(DATA)])
def test_a_later_run_goes_on_too(held: int, shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [300_000, *[(500, {})] * 6]
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    failed = once()
    assert "goes on from here (300,000 bytes are there)" in failed.detail
    assert not once.file.exists()
    (once.file.parent / ".x.csv.part").write_bytes(DATA[:held])
    again = Once(tmp_path, f"{shelf.url}/x.csv")
    assert again().state == "fetched"
    assert shelf.asked("Range")[-1] == f"bytes={held}-"
    assert again.file.read_bytes() == DATA
    assert again.files == {"x.csv", ".fetched.json"}


@pytest.mark.parametrize("way", ["no ranges", "no strong etag", "changed", "part too long"])
def test_what_cannot_go_on_starts_anew(way: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.ranges, shelf.strong = way != "no ranges", way != "no strong etag"
    shelf.faults["/x.csv"] = [300_000, *[(503, {})] * 6]
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    assert once().state == "failed"
    if way == "changed":
        shelf.files["/x.csv"] = DATA[::-1]
    if way == "part too long":
        (once.file.parent / ".x.csv.part").write_bytes(DATA + DATA)
    assert once().state == "fetched"
    assert once.file.read_bytes() == shelf.files["/x.csv"]


def test_a_server_that_sends_another_part_is_not_believed(shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [300_000, (206, {"Content-Range": "bytes 5-7/9"}), (206, {})]
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    assert once().state == "fetched"
    assert once.file.read_bytes() == DATA


def test_a_busy_server_is_waited_for(shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [(429, {"Retry-After": "3"}), (429, {"Retry-After": "86400"}), (503, {})]
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    assert once().state == "fetched"
    assert once.waits == [3.0, 120.0, 8.0]


def test_a_server_that_stays_broken_is_given_up(shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [(500, {})] * 99
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    got = once()
    assert "gave up after 6 attempts: the server answered 500" in got.detail
    assert once.waits == [2.0, 4.0, 8.0, 16.0, 32.0]
    with pytest.raises(SourceError, match="gave up"):
        check([got])


def test_a_line_that_is_always_cut_ends(shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [1000] * 999
    got = Once(tmp_path, f"{shelf.url}/x.csv")()
    assert "gave up after 60 attempts: cut off after 60,000 of" in got.detail


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "upstream has moved or removed it (404); look for it at https://github.com/williamliujl/CMExam"),
        (410, "and put it at "),
        (403, "the server answered 403"),
        (400, "the server answered 400"),
        (307, "redirects in a circle or to what is not http"),
    ],
)
def test_a_refusal_is_one_sentence(status: int, words: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [(status, {})]
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    got = once()
    assert words in got.detail
    assert "\n" not in got.detail
    assert (len(shelf.seen), once.waits, once.files) == (1, [], set())


def test_one_failure_stops_no_other_file(shelf: Shelf, tmp_path: Path) -> None:
    origin = Origin((Remote(f"{shelf.url}/gone.csv", "a.csv"), Remote(f"{shelf.url}/x.csv", "b.csv")))
    assert [got.state for got in fetch(replace(CMEXAM, origin=origin), tmp_path)] == ["failed", "fetched"]


def test_a_redirect_is_followed(serve: Callable[[], Shelf], shelf: Shelf, tmp_path: Path) -> None:
    other = serve()
    other.faults["/a"] = [(302, {"Location": f"{shelf.url}/x.csv"}), (307, {"Location": f"{shelf.url}/x.csv"})]
    shelf.faults["/x.csv"] = [300_000]
    once = Once(tmp_path, f"{other.url}/a")
    assert once().state == "fetched"
    assert shelf.asked("Range") == [None, "bytes=300000-"], "the range goes along"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[x", "data:,x", "/x.csv"])
def test_a_redirect_elsewhere_is_refused(location: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.faults["/x.csv"] = [(302, {"Location": location})] * 20
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    got = once()
    assert got.state == "failed"
    assert "redirect" in got.detail
    assert once.files == set()


def test_a_web_page_is_not_taken_for_a_file(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/login"] = b"<html>please sign in</html>"
    once = Once(tmp_path, f"{shelf.url}/login")
    assert "answers with a web page instead of the file" in once().detail
    assert once.files == set()


def test_a_file_with_the_wrong_digest_is_thrown_away(shelf: Shelf, tmp_path: Path) -> None:
    once = Once(tmp_path, f"{shelf.url}/x.csv", "0" * 64)
    got = once()
    assert f"has the sha256 {hashlib.sha256(DATA).hexdigest()}, not {'0' * 64}" in got.detail
    assert once.files == {".fetched.json"}
    assert json.loads((tmp_path / "cmexam" / ".fetched.json").read_text()) == {}


def test_the_digest_that_the_hub_names_is_checked(hub: Shelf, shelf: Shelf, tmp_path: Path) -> None:
    for digest, state in (("0" * 64, "failed"), (hashlib.sha256(DATA).hexdigest(), "fetched")):
        hub.faults["/hf" + PATH] = [(302, {"Location": f"{shelf.url}/x.csv", "X-Linked-Etag": f'"{digest}"'})]
        assert Once(tmp_path, HUB + PATH)().state == state


@pytest.mark.parametrize("how", ["put there by hand", "changed since", "other address", "other digest"])
def test_a_file_that_is_there_is_never_overwritten(how: str, shelf: Shelf, tmp_path: Path) -> None:
    once = Once(tmp_path, f"{shelf.url}/x.csv")
    if how == "put there by hand":
        once.file.parent.mkdir(parents=True)
        once.file.write_text("mine")
    else:
        once()
    if how == "changed since":
        once.file.write_text("mine")
    url = f"{shelf.url}/y.csv" if how == "other address" else f"{shelf.url}/x.csv"
    before, asked = once.file.read_bytes(), len(shelf.seen)
    got = Once(tmp_path, url, "0" * 64 if how == "other digest" else "")()
    assert got.state == "kept"
    assert "it is kept: move it away to fetch it anew" in got.detail
    assert (once.file.read_bytes(), len(shelf.seen)) == (before, asked)


def test_a_file_put_there_by_hand_is_known_by_its_digest(shelf: Shelf, tmp_path: Path) -> None:
    once = Once(tmp_path, f"{shelf.url}/x.csv", hashlib.sha256(DATA).hexdigest())
    once.file.parent.mkdir(parents=True)
    once.file.write_bytes(DATA)
    assert once().state == "present"
    assert not shelf.seen


def test_the_mirror_gets_the_token_and_nobody_else(hub: Shelf, shelf: Shelf, tmp_path: Path) -> None:
    hub.faults["/hf" + PATH] = [(307, {"Location": "/hf/renamed"})]
    hub.faults["/hf/renamed"] = [(302, {"Location": f"{shelf.url}/x.csv"})]
    got = Once(tmp_path, HUB + PATH)()
    assert got.state == "fetched"
    assert [asked for asked, _ in hub.seen] == ["/hf" + PATH, "/hf/renamed"]
    assert hub.asked("Authorization") == [f"Bearer {TOKEN}"] * 2
    Once(tmp_path / "other", f"{shelf.url}/x.csv")()
    assert shelf.asked("Authorization") == [None, None]
    assert TOKEN not in (tmp_path / "cmexam" / ".fetched.json").read_text() + repr(got)


@pytest.mark.parametrize("status", [401, 403])
def test_terms_to_accept(status: int, hub: Shelf, tmp_path: Path) -> None:
    hub.faults["/hf" + PATH] = [(status, {})]
    got = Once(tmp_path, HUB + PATH)()
    assert f"accept its terms at {hub.url}/hf/datasets/a/b and set HF_TOKEN" in got.detail
    assert TOKEN not in got.detail


def test_an_address_that_ran_out_is_asked_for_again(hub: Shelf, shelf: Shelf, tmp_path: Path) -> None:
    hub.faults["/hf" + PATH] = [(302, {"Location": f"{shelf.url}/x.csv"})] * 2
    shelf.faults["/x.csv"] = [(403, {})]
    assert Once(tmp_path, HUB + PATH)().state == "fetched"


def test_the_proxy_of_the_environment_is_used(
    serve: Callable[[], Shelf], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve()
    monkeypatch.setenv("http_proxy", proxy.url)
    once = Once(tmp_path, "http://upstream.invalid/x.csv")
    assert once().state == "fetched"
    assert once.file.read_bytes() == b"by proxy"
    assert [asked for asked, _ in proxy.seen] == ["http://upstream.invalid/x.csv"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert Once(tmp_path / "direct", f"{proxy.url}/x.csv")().state == "failed"
    assert proxy.seen[-1][0] == "/x.csv"


def test_a_full_disk_is_one_sentence_and_the_part_stays(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(amount: int) -> None:
        if amount:
            raise OSError(28, "No space left on device")

    once = Once(tmp_path, f"{shelf.url}/x.csv")
    monkeypatch.setattr(once, "_advance", full)
    assert "the disk is full; free some room" in once().detail
    monkeypatch.undo()
    assert once().state == "fetched"
    assert once.file.read_bytes() == DATA
    assert str(shelf.asked("Range")[-1]).startswith("bytes=")
