"""Where sources come from, and what of a download needs no server."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimed.errors import SourceError
from chimed.sources import discover
from chimed.sources.archives import find, looked_up
from chimed.sources.fetch import Fetched, check, fetch, named
from chimed.sources.origins import HUB, Origin, Remote
from chimed.sources.web import Web, retry_after

CMEXAM = discover()["cmexam"]


def test_every_source_says_where_its_files_come_from() -> None:
    for name, source in discover().items():
        origin = source.origin
        assert origin.files or origin.where or source.homepage, name
        assert not origin.where.endswith("."), "the folder is named behind it"
        paths = [remote.path for remote in origin.files]
        assert len(paths) == len(set(paths))
        for remote in origin.files:
            assert remote.url.startswith("https://")
            assert remote.url.isascii(), "as it is sent"
            assert len(remote.sha256) in {0, 64}


@pytest.mark.parametrize("name", [name for name, source in discover().items() if source.origin.files])
def test_a_build_reads_what_is_fetched(name: str, tmp_path: Path) -> None:
    paths = [remote.path for remote in discover()[name].origin.files if not remote.path.endswith(".zip")]
    for path in paths:
        (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / path).write_text("x")
    if paths:
        files, unread = find(discover()[name], tmp_path)
        assert sorted(file.name for file in [*files, *looked_up(files)]) == sorted(paths)
        assert not unread


def test_unknown_names_are_told_at_once() -> None:
    with pytest.raises(
        SourceError, match=r"cmexan: .*did you mean 'cmexam'\?.*\n.*zzzzzz: no such source; all of them"
    ):
        named(["toyhom", "cmexan", "zzzzzz"])


UNSAFE = [
    "../x",
    "/etc/x",
    "a/../../x",
    "a//b",
    "./x",
    "",
    ".",
    ".hidden",
    "a/.git/x",
    "a\\..\\x",
    "C:x",
    "x\n",
    "a\0b",
    "x/",
]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_path_that_leads_out_is_refused_before_anything_is_asked(path: str, tmp_path: Path) -> None:
    (got,) = fetch(replace(CMEXAM, origin=Origin((Remote("http://127.0.0.1:1/x", path),))), tmp_path / "raw")
    assert got.state == "failed"
    assert "no safe path" in got.detail
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="./\\ax: ~\n", max_size=8))
def test_no_path_is_placed_outside(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    from chimed.sources.fetch import _place

    raw = tmp_path_factory.mktemp("raw")
    try:
        target = _place(CMEXAM, Remote("http://127.0.0.1:1/x", path), raw).target
    except SourceError:
        return
    assert target.resolve().is_relative_to(raw / "cmexam")
    assert target.resolve() != raw / "cmexam"


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "raw" / "cmexam").mkdir(parents=True)
    (tmp_path / "raw" / "cmexam" / "data").symlink_to(tmp_path / "elsewhere")
    origin = Origin((Remote("http://127.0.0.1:1/x", "data/deep/x.csv"),))
    (got,) = fetch(replace(CMEXAM, origin=origin), tmp_path / "raw")
    assert "a link that may lead elsewhere" in got.detail
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "data:,x", "//host/x", "https://", "http://[x/y"]
)
def test_only_http_is_spoken(url: str, tmp_path: Path) -> None:
    (got,) = fetch(replace(CMEXAM, origin=Origin((Remote(url, "x.csv"),))), tmp_path)
    assert got.state == "failed"
    assert "allowed are http://host/" in got.detail


def test_a_source_without_files_says_where_to_get_them_and_where_to_put_them(tmp_path: Path) -> None:
    (got,) = fetch(discover()["meddialog"], tmp_path)
    assert got.state == "by-hand"
    assert "https://github.com/UCSD-AI4H/Medical-Dialogue-System" in got.detail
    assert got.detail.endswith(f"put the files into {tmp_path / 'meddialog'}")
    with pytest.raises(SourceError, match="meddialog: cannot be fetched"):
        check([got])


def test_what_is_left_to_the_hand_is_no_failure_beside_files() -> None:
    present = Fetched("x", "present", "x/a")
    check([present, Fetched("x", "by-hand", "x", detail="where")])
    check([])
    with pytest.raises(SourceError, match=r"^first\nsecond$"):
        check([present, Fetched("x", "failed", "x/b", detail="first"), Fetched("x", "failed", "x/c", detail="second")])


@pytest.mark.parametrize("endpoint", ["file:///x", "hf-mirror.com", "https://user:secret@host", "http://host/\x07"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(SourceError, match="not an address") as caught:
        Web(endpoint)
    assert "secret" not in str(caught.value)


def test_a_token_that_is_none_is_refused_and_not_shown() -> None:
    with pytest.raises(SourceError, match="HF_TOKEN") as caught:
        Web(HUB, "hf_secret\nX-Header: 1")
    assert "secret" not in str(caught.value)


def test_only_the_hub_goes_to_the_mirror() -> None:
    web = Web("http://mirror.example/sub/")
    assert web.address(f"{HUB}/datasets/a") == "http://mirror.example/sub/datasets/a"
    assert web.address("https://huggingface.co.evil.example/a") == "https://huggingface.co.evil.example/a"
    assert web.is_endpoint("http://mirror.example/other")
    assert not web.is_endpoint("https://mirror.example/other")
    assert not web.is_endpoint("http://mirror.example:8080/other")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("²", None),
    ],
)
def test_what_a_server_asks_to_wait(value: str, seconds: float | None) -> None:
    from email.message import Message

    headers = Message()
    headers["Retry-After"] = value
    assert retry_after(headers) == seconds


@pytest.mark.parametrize("text", ["", "[]", "nonsense", json.dumps({"x.csv": "text"}), "\x80"])
def test_a_broken_record_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "cmexam").mkdir()
    (tmp_path / "cmexam" / "x.csv").write_text("by hand")
    (tmp_path / "cmexam" / ".fetched.json").write_text(text, encoding="latin-1")
    (got,) = fetch(replace(CMEXAM, origin=Origin((Remote("http://127.0.0.1:1/x", "x.csv"),))), tmp_path)
    assert got.state == "kept"


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("no_proxy", "127.0.0.1", "gave up after 6 attempts: [Errno"),
        ("http_proxy", "http://127.0.0.1:9", "gave up after 6 attempts: [Errno"),
        ("http_proxy", "socks9://127.0.0.1:9", "gave up after 6 attempts: unknown url type"),
    ],
)
def test_nobody_answers(variable: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    host = "127.0.0.1:9" if variable == "no_proxy" else "upstream.invalid"
    origin = Origin((Remote(f"http://{host}/x.csv", "x.csv"),))
    waits: list[float] = []
    (got,) = fetch(replace(CMEXAM, origin=origin), tmp_path, sleep=waits.append)
    assert words in got.detail
    assert len(waits) == 5


def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cmexam").write_text("a file where the folder should be")
    (got,) = fetch(replace(CMEXAM, origin=Origin((Remote("http://127.0.0.1:9/x.csv", "data/x.csv"),))), tmp_path)
    assert "cannot be written" in got.detail
