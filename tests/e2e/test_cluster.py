"""A Ray cluster of two nodes gives the bytes of this machine's own workers, also when it loses a node on the way."""

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
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, as processes of this machine."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes.lost = nodes.add_node(**node)
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


def test_no_cluster_is_one_sentence(chimed: Run, tmp_path: Path) -> None:
    done = chimed("build", "--stage", "sft", "--out", tmp_path / "out", "--ray", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no Ray cluster answers at '127.0.0.1:1'" in done.stderr
    assert "Traceback" not in done.stderr
