"""A build from and to an object store leaves there the bytes that a build from and to folders leaves."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs", reason="needs the s3 extra: pip install -e '.[s3]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # the server's own imports warn

Run = Callable[..., subprocess.CompletedProcess[str]]
Contents = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def local(large: Path, chimed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build from and to folders."""
    out = tmp_path_factory.mktemp("local") / "out"
    done = chimed(*_arguments(large, large / "raw", out))
    assert done.returncode == 0, done.stderr
    return out


def _arguments(large: Path, raw: object, out: object) -> list[object]:
    return ["build", "--stage", "all", "--recipe", large / "recipe.yaml", "--raw", raw, "--out", out, "--workers", 1]


def test_a_disk_by_its_url(large: Path, local: Path, chimed: Run, contents: Contents, tmp_path: Path, s3: Any) -> None:
    """Bytes of folders; a second run sends nothing; what goes in the raw folder goes from the shards."""
    raw, out, away = tmp_path / "raw", tmp_path / "out", {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    shutil.copytree(large / "raw", raw)
    arguments = _arguments(large, f"file://{raw}", f"file://{out}")
    done = chimed(*arguments, env=away)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(local)
    copies = {path: path.stat().st_ino for path in [*out.rglob("*"), *(tmp_path / "cache").rglob("*.jsonl")]}

    again = chimed(*arguments, env=away)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_ino for path in copies} == copies

    (raw / "again" / "train-0.jsonl").unlink()
    (out / "sft" / "NOTES.txt").write_text("mine")
    (out / "sft" / "train-00007-of-00009.parquet").write_text("left by a build that was cut off")
    fewer = chimed(*_arguments(large, raw, tmp_path / "fewer"))
    assert fewer.returncode == 0, fewer.stderr
    done = chimed(*arguments, env=away)
    assert done.returncode == 0, done.stderr
    assert (out / "sft" / "NOTES.txt").read_text() == "mine"
    (out / "sft" / "NOTES.txt").unlink()
    assert contents(out) == contents(tmp_path / "fewer") != contents(local)


def test_a_bucket(large: Path, local: Path, chimed: Run, contents: Contents, tmp_path: Path, s3: Any) -> None:
    s3.send(large / "raw", "raw/")
    s3.client.put_object(Bucket="bucket", Key="raw-other/file", Body=b"not below raw/")
    arguments = _arguments(large, "s3://bucket/raw", "s3://bucket/out/")
    done = chimed(*arguments, env={**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(s3.fetch("out/", tmp_path / "fetched")) == contents(local)
    sent = s3.keys("out/")
    assert [name for name in sent if "/.work/" in name] == ["out/.work/mark"]

    time.sleep(1)  # times in a listing are whole seconds
    again = chimed(*arguments, env={**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert s3.keys("out/") == sent
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("s3")] == []

    # Another machine knows nothing of the first: shards that are there are not sent again.
    other = chimed(*arguments, env={**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "other")}, cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    now = s3.keys("out/")
    assert {name for name in sent if now[name] == sent[name] and name.endswith(".parquet")} >= {
        name for name in sent if name.endswith(".parquet") and name != "out/ledger.parquet"
    }
    assert contents(s3.fetch("out/", tmp_path / "fetched")) == contents(local)


def test_killed_at_five_moments_and_resumed(
    large: Path, local: Path, contents: Contents, tmp_path: Path, s3: Any
) -> None:
    rng, kills = random.Random(5), 0
    arguments = map(str, _arguments(large, f"file://{large / 'raw'}", "s3://bucket/killed"))
    command, away = (
        [sys.executable, "-m", "chimed.cli", *arguments],
        {**s3.environment, "XDG_CACHE_HOME": str(tmp_path)},
    )
    for moment in sorted(rng.uniform(0.8, 3) for _ in range(5)):
        process = subprocess.Popen(command, env=away, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        kills += process.poll() is None
        process.kill()
        process.wait()
    done = subprocess.run(command, env=away, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills  # later ones find most of the work done and may finish first
    assert contents(s3.fetch("killed/", tmp_path / "fetched")) == contents(local)


@pytest.mark.parametrize(
    ("raw", "out", "said"),
    [
        ("s3://absent/raw", "out", "s3://absent/raw: nothing is there"),
        (None, "s3://absent/out", "s3://absent/out: not found"),
        (None, "s3://bucket/taken", "s3://bucket/taken: holds something else (thesis.tex)"),
        ("s3://bucket/tricks", "out", "holds a file named 'cmexam/../../../secret', which is no path below it"),
        ("nowhere://bucket/raw", "out", "nowhere:// is no kind of URL that fsspec knows"),
        ("sftp://me:geheim@127.0.0.1:1/raw", "out", "sftp://127.0.0.1:1/raw: a package for sftp:// is not installed"),
    ],
)
def test_faults_are_one_sentence(raw: str | None, out: str, said: str, chimed: Run, tmp_path: Path, s3: Any) -> None:
    s3.client.put_object(Bucket="bucket", Key="taken/thesis.tex", Body=b"mine")
    s3.client.put_object(Bucket="bucket", Key="tricks/cmexam/../../../secret", Body=b"taken")
    given = [*(["--raw", raw] if raw else []), "--out", out]
    away = {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "a" / "cache")}
    done = chimed("build", "--stage", "sft", *given, env=away, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "geheim" not in done.stderr
    assert not list(tmp_path.rglob("secret"))


@pytest.mark.parametrize("given", [{"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, {"AWS_ACCESS_KEY_ID": ""}])
def test_a_store_out_of_reach_is_one_sentence(given: dict[str, str], chimed: Run, tmp_path: Path, s3: Any) -> None:
    away = {**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "cache"), **given}
    away = {name: value for name, value in away.items() if value}
    done = chimed("build", "--stage", "sft", "--out", "s3://bucket/reach", env=away, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("chimed: s3://bucket/reach: ")


@pytest.mark.parametrize(
    "command",
    [
        ["dedup", "rows.jsonl", "--out", "s3://bucket/out"],
        ["export", "out", "--to", "openai", "--out", "s3://bucket/out"],
        ["fetch", "cmexam", "--raw", "s3://me:geheim@bucket/raw"],
        ["stats", "s3://bucket/out"],
        ["build", "--stage", "sft", "--against", "s3://bucket/out"],
    ],
)
def test_where_a_folder_is_needed_a_url_makes_none(command: list[str], chimed: Run, tmp_path: Path) -> None:
    done = chimed(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "s3://: a folder is needed here" in done.stderr
    assert "geheim" not in done.stderr
    assert not list(tmp_path.iterdir())
