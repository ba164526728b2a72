"""A page on this computer that asks: GET / is the page, POST /ask takes {"question": …} and gives the answer as JSON.

It listens on 127.0.0.1 alone, and turns away pages of other sites: their requests name another host or origin, or send
no JSON. The page holds no file from outside and writes what comes back as text, never as markup. The model runs in the
main thread, one question at a time, so that Ctrl-C ends it wherever it is.
"""

import base64
import hashlib
import html
import json
import re
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol

from qilin.ask import NOTE, Answered, Asker
from qilin.errors import QilinError, RunError

MOST = 64 * 1024  # bytes of a question
Reply = tuple[int, dict[str, Any]]
_HOSTS = ("127.0.0.1", "localhost")
_BUSY = "another question is being answered; ask again when it is done"


class Asks(Protocol):
    """What answers a question, or raises a QilinError."""

    def __call__(self, question: str) -> Answered: ...


def serve(asker: Asker, port: int) -> None:
    """Answer questions on http://127.0.0.1:PORT until Ctrl-C; port 0 takes a free one. RunError: the port is taken."""
    held, shown = f"{len(asker.retriever):,} passages", f"{asker.k} a question by {asker.mode}"
    about = " · ".join([asker.name, str(asker.retriever.folder), held, shown])
    with open_server(about, port) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_port}  (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                server.answer(asker.ask)
        server.shutdown()
    print("\nstopped", flush=True)


def open_server(about: str, port: int) -> "Server":
    """The server, bound but not serving. about: what answers, for the head of the page."""
    try:
        return Server(port, page(about))
    except OSError as error:
        why = error.strerror or error
        raise RunError(f"port {port} of 127.0.0.1 cannot be used ({why}); give another with --port") from error


def page(about: str) -> str:
    """The page, with what stands in it by name escaped.

    >>> "<b>" in page("model <b>")
    False
    """
    text = files("qilin").joinpath("ask.html").read_text(encoding="utf-8")
    return text.replace("{{about}}", html.escape(about)).replace("{{note}}", html.escape(NOTE))


def _policy(text: str) -> str:
    """What a browser may do with the page: run and style by what stands in it, and ask this server; nothing else."""
    own = {}
    for tag in ("script", "style"):
        [block] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        own[tag] = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
    allowed = "; ".join(f"{tag}-src 'sha256-{digest}'" for tag, digest in own.items())
    never = "; ".join(f"{what} 'none'" for what in ("default-src", "base-uri", "form-action", "frame-ancestors"))
    return f"{never}; {allowed}; connect-src 'self'; img-src data:"


class Server(ThreadingHTTPServer):
    """Takes requests in threads of their own and hands questions, one at a time, to the thread that calls `answer`."""

    daemon_threads = True

    def __init__(self, port: int, text: str) -> None:
        self.page, self.policy = text, _policy(text)
        self.free = Lock()
        self._asked: SimpleQueue[tuple[str, SimpleQueue[Reply]]] = SimpleQueue()
        super().__init__(("127.0.0.1", port), partial(_Request))

    def answer(self, ask: Asks) -> None:
        """Wait for a question and answer it; nothing happens where none comes within a second.

        A wait without an end could miss Ctrl-C: a signal between Python's last look for one and the wait, or one that
        another thread receives, does not end it, and is heard when the wait is over.
        """
        try:
            question, back = self._asked.get(timeout=1)
        except Empty:
            return
        try:
            back.put((200, asdict(ask(question))))
        except QilinError as error:
            back.put((400, {"error": str(error)}))

    def ask(self, question: str) -> Reply:
        """Status and content of the reply to a question, once the other thread has it; at once while it has another."""
        if not self.free.acquire(blocking=False):
            return 503, {"error": _BUSY}
        try:
            back: SimpleQueue[Reply] = SimpleQueue()
            self._asked.put((question, back))
            return back.get()
        finally:
            self.free.release()


class _Request(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds without a word

    def do_GET(self) -> None:
        if not self._from_here():
            self._send(403, {"error": "this page is for this computer alone"})
        elif self.path != "/":
            self._send(404, {"error": "there is one page, /"})
        else:
            self._write(200, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._from_here():
            self._send(403, {"error": "this page is for this computer alone"})
        elif self.path != "/ask":
            self._send(404, {"error": "questions go to /ask"})
        elif self.headers.get_content_type() != "application/json":
            self._send(415, {"error": "a question is JSON: send Content-Type: application/json"})
        elif not (length.isascii() and length.isdigit()) or int(length) > MOST:
            self._send(413, {"error": f"a question has a Content-Length of at most {MOST:,} bytes"})
        elif (question := _question(self.rfile.read(int(length)))) is None:
            self._send(400, {"error": 'send {"question": "…"}'})
        else:
            self._send(*self.server.ask(question))

    def _from_here(self) -> bool:
        """Whether a page of this server asks, or no page: names that others let point here are not taken."""
        hosts = {f"{host}:{self.server.server_port}" for host in _HOSTS}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and origin in {None, *(f"http://{host}" for host in hosts)}

    def _send(self, status: int, content: dict[str, Any]) -> None:
        self._write(status, "application/json", json.dumps(content, ensure_ascii=False))

    def _write(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        with suppress(ConnectionError):  # who asked may have gone
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Questions are not written down."""


def _question(body: bytes) -> str | None:
    try:
        found = json.loads(body)["question"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
