"""A build gives the same bytes with any number of workers, and when it was killed and taken up again."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Contents = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def whole(
    large: Path, chimed: Run, contents: Contents, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], float]:
    """What an uninterrupted build with one worker leaves, and the seconds it takes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    began = time.monotonic()
    done = chimed(*_arguments(large, out, 1))
    assert done.returncode == 0, done.stderr
    return contents(out), time.monotonic() - began


def _arguments(large: Path, out: Path, workers: int) -> list[str]:
    paths = ["--recipe", str(large / "recipe.yaml"), "--raw", str(large / "raw"), "--out", str(out)]
    return ["build", "--stage", "all", *paths, "--workers", str(workers)]


def test_two_workers_give_the_bytes_of_one(
    large: Path, chimed: Run, contents: Contents, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    done = chimed(*_arguments(large, tmp_path / "out", 2))
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == whole[0]


def test_one_stage_after_another_gives_the_bytes_of_all_at_once(
    large: Path, chimed: Run, contents: Contents, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """A later stage takes up the parts, decisions and graphs of the ones before."""
    stages = sorted({name.partition("/")[0] for name in whole[0] if "/" in name}, reverse=True)
    assert {"cpt", "rag", "sft"} <= set(stages)
    for stage in stages:
        arguments = _arguments(large, tmp_path / "out", 2)
        arguments[arguments.index("all")] = stage
        done = chimed(*arguments)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == whole[0]


def test_killed_at_ten_moments_and_resumed(
    large: Path, contents: Contents, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    out, rng = tmp_path / "out", random.Random(3)
    command = [sys.executable, "-m", "chimed.cli", *_arguments(large, out, 2)]
    kills = 0
    for _ in range(10):
        # Killed as a group, workers included, anywhere between the start and the end of a whole build.
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.2, max(2.0, whole[1] * 0.8)))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills >= 3  # later ones find most of the work done and may finish first
    assert contents(out) == whole[0]


def test_a_finished_build_is_left_as_it_is(large: Path, chimed: Run, tmp_path: Path) -> None:
    first = chimed(*_arguments(large, tmp_path / "out", 1))
    assert first.returncode == 0, first.stderr
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*.parquet")}
    again = chimed(*_arguments(large, tmp_path / "out", 1))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*.parquet")} == before
