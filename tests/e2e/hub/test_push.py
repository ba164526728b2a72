"""`push` with the real client of the Hub, against a small Hub on the loopback that can fail in every way it may."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from chimed.errors import BuildError
from chimed.publish.finished import finished
from chimed.publish.hub import Push, _asked, push
from chimed.publish.licences import licensed

pytest.importorskip("huggingface_hub", reason="needs the hub extra: pip install -e '.[hub]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # the client itself uses what its own HTTP library deprecates

REPO = "someone/chimed"
Hub = Any  # of conftest.py, whose classes a test module cannot import


class Silent:
    def step(self, name: str, total: int) -> Callable[[int], None]:
        return lambda amount: None


def send(out: Path, waits: list[float] | None = None, **more: Any) -> Any:
    request = Push(out, REPO, **{"allowed": None, **more})
    return push(request, Silent(), (waits if waits is not None else []).append)


def local(out: Path) -> dict[str, bytes]:
    paths = [path for stage in finished(out) for path in stage.folder.rglob("*") if path.is_file()]
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
        assert 2.5 <= max(waits + own) <= 4  # what the Hub asked for; the client waits a second more


def test_a_wait_is_the_one_that_the_hub_asks_for() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < _asked({"Retry-After": soon}) <= 90  # type: ignore[operator]
    assert _asked({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert [_asked({"Retry-After": odd}) for odd in ("", "soon", "-3", "٣")] == [None] * 4


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
    assert os.environ["HF_TOKEN"] not in message
    assert message.endswith(f"chimed push {built} --repo {REPO} --any-licence")
    before = set(hub.objects)
    hub.faults, hub.asked = [], []
    send(built)
    assert remote(hub) == local(built)
    assert not {line.removeprefix("PUT /lfs/") for line in hub.asked if line.startswith("PUT")} & before


def test_a_token_of_no_use_is_told_without_showing_it(hub: Hub, built: Path, tmp_path: Path) -> None:
    (path := tmp_path / "my token").write_text("hf_wrongwrong\n")
    with pytest.raises(BuildError, match=r"knows no such token \(401\)") as caught:
        send(built, token_file=path)
    assert "hf_wrong" not in str(caught.value)


def test_the_command_to_go_on_has_every_option(hub: Hub, built: Path, tmp_path: Path) -> None:
    (path := tmp_path / "my token").write_text(os.environ["HF_TOKEN"])
    licences = sorted({source.license for source in licensed(finished(built)) if source.asks is None})
    hub.faults.append(["/batch", 500, -1])
    with pytest.raises(BuildError) as caught:
        send(built, token_file=path, public=True, allowed=licences)
    command = shlex.split(str(caught.value).partition("go on with: ")[2])
    assert command[:7] == ["chimed", "push", str(built), "--repo", REPO, "--token-file", str(path)]
    assert command[7:] == ["--public", *(word for name in licences for word in ("--allow-licence", name))]
    hub.faults = []
    own = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_ofsomeoneelse"}
    again = [sys.executable, "-m", "chimed.cli", *command[1:]]
    done = subprocess.run(again, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert remote(hub) == local(built)


def test_every_file_that_the_manifest_lists_is_pushed(hub: Hub, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built / "cpt", out / "cpt")
    (out / "cpt" / "plots").mkdir()
    files = {"plots/plot-lengths.png": b"\x89PNG", "plot-sources.png": b"\x89PNG 2", "LICENSE.md": b"licences"}
    manifest = json.loads((out / "cpt" / "manifest.json").read_text())
    for name, content in files.items():
        (out / "cpt" / name).write_bytes(content)
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (out / "cpt" / "manifest.json").write_text(json.dumps(manifest))
    send(out)
    assert remote(hub) == local(out)
    for name in files:  # gone from the build, so gone from the repository
        (out / "cpt" / name).unlink()
        del manifest["files"][name]
    (out / "cpt" / "manifest.json").write_text(json.dumps(manifest))
    assert set(send(out).deleted) == {f"cpt/{name}" for name in files}
    assert remote(hub) == local(out)


def test_a_repository_that_everyone_reads_needs_a_word(hub: Hub, built: Path) -> None:
    assert send(built, public=True).private is False
    with pytest.raises(BuildError, match="everyone can read it; make it private in its settings, or add --public"):
        send(built)


LOAD = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from datasets import get_dataset_config_names, load_dataset
for stage in get_dataset_config_names(sys.argv[1]):
    plain = load_dataset(sys.argv[1], stage)
    stream = load_dataset(sys.argv[1], stage, streaming=True)
    assert set(plain) == set(stream)
    for split, rows in plain.items():
        paths = sorted(Path(sys.argv[2], stage).glob(f"{split}-*.parquet"))
        own = [row for path in paths for row in pq.read_table(path).to_pylist()]
        assert own == rows.to_list() == list(stream[split]), (stage, split)
        print(stage, split, len(own))
"""


def test_datasets_loads_what_was_pushed(hub: Hub, built: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs the hub extra: pip install -e '.[hub]'")
    send(built)
    own = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", LOAD, REPO, str(built)]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = [line.split() for line in done.stdout.splitlines()]
    counted = {stage.stage: stage.manifest["rows"] for stage in finished(built)}
    assert {(stage, split): int(rows) for stage, split, rows in loaded} == {
        (stage, split): rows for stage, own in counted.items() for split, rows in own.items()
    }
    assert {stage for stage, *_ in loaded} == {"cpt", "sft", "dpo", "eval", "rag"}


def test_the_command_pushes_lists_and_refuses(hub: Hub, built: Path, chimed: Any) -> None:
    where = {"env": {**os.environ, "HF_HUB_DISABLE_XET": "1", "COLUMNS": "80"}}
    refused = chimed("push", built, "--repo", REPO, **where)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.match(r"chimed: these licences forbid passing the rows on.*: .*unknown \(.*xywy-kg", refused.stderr)
    planned = chimed("push", built, "--repo", REPO, "--any-licence", "--dry-run", **where)
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^would upload \d+ files, [\d.]+ MB$", planned.stdout, re.MULTILINE)
    assert (hub.sent(), hub.private) == ([], None)
    done = json.loads(chimed("push", built, "--repo", REPO, "--any-licence", "--json", **where).stdout)
    assert (done["commit"], hub.private) == (hub.head, True)
    again = chimed("push", built, "--repo", REPO, "--any-licence", **where)
    assert f"nothing to upload; {len(done['uploaded'])} files were there already" in again.stdout
    assert max(map(len, planned.stdout.splitlines()[:-1])) <= 80


def test_a_licence_of_ones_own_source_is_judged(hub: Hub, chimed: Any, tmp_path: Path) -> None:
    for name, answer in (("clinic", "多喝水，注意休息，三天后复诊。"), ("ward", "先量血压，再决定要不要加药。")):
        (tmp_path / "raw" / name).mkdir(parents=True)
        row = {"q": f"{answer[:4]}之后还要注意什么？", "a": answer}
        (tmp_path / "raw" / name / "train.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
    (tmp_path / "ward.py").write_text(
        "from chimed.sources.spec import Source, dialogue\n"
        'SOURCE = Source(name="ward", title="Ward", homepage="https://ward.example", license="CC-BY-NC-ND-4.0",\n'
        '    files={"*": "train"}, parse=dialogue("q", "a"), shapes=("dialogue",), stages=("sft",))\n'
    )
    block = (
        "{name: clinic, shape: dialogue, files: {'*': train}, columns: {question: q, answer: a}, license: cc-by-4.0}"
    )
    (recipe := tmp_path / "recipe.yaml").write_text(f"validation: 0\nsources:\n  - {block}\n  - {{file: ward.py}}\n")
    out = tmp_path / "out"
    done = chimed("build", "--stage", "sft", "--recipe", recipe, "--raw", tmp_path / "raw", "--out", out)
    assert done.returncode == 0, done.stderr
    with pytest.raises(BuildError, match=r"do not allow it: CC-BY-NC-ND-4\.0 \(ward\); leave"):
        send(out, allowed=())
    send(out, allowed=["cc-by-nc-nd-4.0"])
    card = hub.files[hub.head]["README.md"].decode()
    assert "| `clinic` clinic | 1 | CC-BY-4.0 | name the source and its licence |" in card
    assert "| `ward` [Ward](https://ward.example) | 1 | CC-BY-NC-ND-4.0 | no right to pass it on was found |" in card
