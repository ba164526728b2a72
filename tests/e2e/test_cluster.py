"""A Ray cluster of two nodes gives the bytes of this machine's own workers, also when it loses a node on the way, and
when only a store stands between the nodes."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the ray extra: pip install -e '.[ray]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own imports warn

Run = Callable[..., subprocess.CompletedProcess[str]]
Contents = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def cluster(s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes of one core each, as processes of this machine, each with a cache of its own; `grow` adds another."""
    from ray.cluster_utils import Cluster

    caches: list[Path] = []

    def node() -> dict[str, Any]:
        caches.append(tmp_path_factory.mktemp("node"))
        given = {name: value for name, value in s3.environment.items() if name.startswith("AWS_")}
        return {
            "num_cpus": 1,
            "object_store_memory": 100 << 20,
            "env_vars": {**given, "XDG_CACHE_HOME": str(caches[-1])},
        }

    nodes = Cluster(initialize_head=True, head_node_args={**node(), "include_dashboard": False})
    nodes.caches, nodes.grow = caches, lambda: nodes.add_node(**node())
    try:
        nodes.lost = nodes.grow()
        nodes.wait_for_nodes()
        yield nodes
    finally:
        nodes.shutdown()


def _arguments(large: Path, out: Path) -> list[str]:
    paths = ["--recipe", str(large / "recipe.yaml"), "--raw", str(large / "raw"), "--out", str(out)]
    return ["build", "--stage", "all", *paths]


def test_two_nodes_give_the_bytes_of_one_machine_also_when_one_is_lost(
    large: Path, cluster: Any, chimed: Run, contents: Contents, tmp_path: Path
) -> None:
    done = chimed(*_arguments(large, tmp_path / "local"), "--workers", "1")
    assert done.returncode == 0, done.stderr
    done = chimed(*_arguments(large, tmp_path / "two"), "--ray", cluster.address)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "two") == contents(tmp_path / "local")

    command = [sys.executable, "-m", "chimed.cli", *_arguments(large, tmp_path / "lost"), "--ray", cluster.address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not any((tmp_path / "lost/.work").rglob("*.arrow")):
        time.sleep(0.05)  # until the first part is done
    assert process.poll() is None, "the build ended before a node could be taken away"
    cluster.remove_node(cluster.lost, allow_graceful=False)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert contents(tmp_path / "lost") == contents(tmp_path / "local")


def test_nodes_that_share_no_disk(
    large: Path, cluster: Any, chimed: Run, contents: Contents, tmp_path: Path, s3: Any
) -> None:
    """What the first machine calls its files is nowhere else: its own folder stands in all its paths."""
    lost = cluster.grow()
    cluster.wait_for_nodes()
    s3.send(large / "raw", "apart/raw/")
    (home := tmp_path / "home").mkdir()
    shutil.copy(large / "recipe.yaml", home)
    done = chimed(*_arguments(large, tmp_path / "local"), "--workers", "1")
    assert done.returncode == 0, done.stderr

    options = ["--recipe", "/proc/self/cwd/recipe.yaml", "--raw", "s3://bucket/apart/raw", "--ray", cluster.address]
    arguments = ["build", "--stage", "all", *options, "--workers", "1", "--out"]
    away = {**s3.environment, "XDG_CACHE_HOME": "/proc/self/cwd/cache"}
    done = chimed(*arguments, "s3://bucket/apart/out", cwd=home, env=away)
    assert done.returncode == 0, done.stderr
    assert contents(s3.fetch("apart/out/", tmp_path / "two")) == contents(tmp_path / "local")
    assert all(list(cache.rglob("done.json")) for cache in cluster.caches[-1:] + cluster.caches[:1])
    assert not s3.keys("apart/out/.work/stages/")

    command = [sys.executable, "-m", "chimed.cli", *arguments, "s3://bucket/apart/lost"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=home, env=away
    )
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not s3.keys("apart/lost/.work/parts/"):
        time.sleep(0.05)
    assert process.poll() is None, "the build ended before a node could be taken away"
    cluster.remove_node(lost, allow_graceful=False)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert contents(s3.fetch("apart/lost/", tmp_path / "lost")) == contents(tmp_path / "local")


def test_another_machine_goes_on_from_the_store(
    large: Path, cluster: Any, chimed: Run, contents: Contents, tmp_path: Path, s3: Any
) -> None:
    """The parts that a build left when it was killed, on the head node itself, are found from an empty cache."""
    raw, out = f"file://{large / 'raw'}", "s3://bucket/resumed"
    options = ["--recipe", large / "recipe.yaml", "--raw", raw, "--ray", cluster.address, "--workers", 1]
    arguments = list(map(str, ["build", "--stage", "all", *options, "--out", out]))
    process = subprocess.Popen(
        [sys.executable, "-m", "chimed.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**s3.environment, "XDG_CACHE_HOME": str(cluster.caches[0])},
    )
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and len(_done(s3, "resumed/")) < 2:
        time.sleep(0.05)
    assert process.poll() is None, "the build ended before it could be killed"
    process.kill()
    process.wait()
    before = _done(s3, "resumed/")
    time.sleep(1)  # times in a listing are whole seconds
    done = chimed(*arguments, env={**s3.environment, "XDG_CACHE_HOME": str(tmp_path / "second")})
    assert done.returncode == 0, done.stderr
    after = _done(s3, "resumed/")
    assert before.items() <= after.items()
    plain = chimed(*_arguments(large, tmp_path / "local"), "--workers", "1")
    assert plain.returncode == 0, plain.stderr
    assert contents(s3.fetch("resumed/", tmp_path / "fetched")) == contents(tmp_path / "local")


def _done(s3: Any, prefix: str) -> dict[str, Any]:
    """The parts that are complete in a store, and since when."""
    return {key: at for key, at in s3.keys(f"{prefix}.work/parts/").items() if key.endswith("/done.json")}


def test_no_cluster_is_one_sentence(chimed: Run, tmp_path: Path) -> None:
    done = chimed("build", "--stage", "sft", "--out", tmp_path / "out", "--ray", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
