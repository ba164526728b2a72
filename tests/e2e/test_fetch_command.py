"""`chimed fetch` as a process, against a mirror of the Hub on the loopback."""

import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_" + "secret" * 5
PUBLISHED = "datasets/haonan-li/cmmlu/resolve/main/cmmlu_v1_0_1.zip"
DATA = b"what upstream publishes" * 1000


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder that a mirror serves, and the environment that names it."""
    folder = tmp_path / "mirror"
    (folder / PUBLISHED).parent.mkdir(parents=True)
    (folder / PUBLISHED).write_bytes(DATA)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    proxies = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    environment = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
    yield folder, {**environment, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": TOKEN}
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_files_are_fetched_once_and_the_licence_is_shown(chimed: Any, mirror: Any, tmp_path: Path) -> None:
    done = chimed("fetch", "cmmlu", "--raw", tmp_path / "raw", env=mirror[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cmmlu: licence CC-BY-NC-SA-4.0, https://github.com/haonan-li/CMMLU\n")
    assert (tmp_path / "raw" / "cmmlu" / "cmmlu_v1_0_1.zip").read_bytes() == DATA
    (mirror[0] / PUBLISHED).unlink()
    again = chimed("fetch", "cmmlu", "--raw", tmp_path / "raw", "--json", env=mirror[1])
    (entry,) = json.loads(again.stdout)
    assert (entry["state"], entry["sha256"]) == ("present", hashlib.sha256(DATA).hexdigest())
    assert TOKEN not in done.stdout + again.stdout + again.stderr


def test_what_fails_is_one_sentence_each_and_the_exit_code(chimed: Any, mirror: Any, tmp_path: Path) -> None:
    (mirror[0] / PUBLISHED).unlink()
    lost = chimed("fetch", "cmmlu", "--raw", tmp_path / "raw", env=mirror[1])
    assert lost.returncode == 2
    assert lost.stderr.startswith("chimed: http://127.0.0.1:")
    assert "upstream has moved or removed it (404)" in lost.stderr
    assert lost.stderr.count("\n") == 1
    assert TOKEN not in lost.stdout + lost.stderr


def test_what_cannot_be_fetched_says_where_it_is(chimed: Any, tmp_path: Path) -> None:
    done = chimed("fetch", "meddialog", "--raw", tmp_path)
    assert done.returncode == 2
    assert "by hand from the folder that the README of https://github.com/UCSD-AI4H/" in done.stderr
    assert f"put the files into {tmp_path / 'meddialog'}" in done.stderr


def test_an_unknown_name_is_told(chimed: Any, tmp_path: Path) -> None:
    done = chimed("fetch", "cmmlo", "--raw", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'cmmlu'?" in done.stderr
