"""A kernel that calls one of another file runs the code that is there."""

import subprocess
import sys
from pathlib import Path

import pytest

CALLER = (
    "from numba import njit\nfrom toy.called import value\n\n@njit(cache=True)\ndef twice():\n    return 2 * value()\n"
)
CALLED = "from numba import njit\n\n@njit(cache=True)\ndef value():\n    return {}\n"
RUN = "from toy.caller import twice; print(twice(), sum(twice.stats.cache_hits.values()))"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from pathlib import Path\nfrom chimed.kernels import refresh\nrefresh(Path(__file__).parent)\n"
    )
    (folder / "caller.py").write_text(CALLER)
    (folder / "called.py").write_text(CALLED.format(1))
    (folder / "other.py").write_text("A = 1\n")
    return folder


def run(toy: Path) -> list[int]:
    """What `twice` gives, and how often it came from the cache."""
    done = subprocess.run([sys.executable, "-c", RUN], cwd=toy.parent, capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


def test_a_kernel_is_compiled_again_when_one_that_it_calls_has_changed(toy: Path) -> None:
    assert [run(toy), run(toy)] == [[2, 0], [2, 1]]
    (toy / "other.py").write_text("A = 2\n")
    assert run(toy) == [2, 1], "a file without kernels is no reason to compile"
    (toy / "called.py").write_text(CALLED.format(21))
    assert [run(toy), run(toy)] == [[42, 0], [42, 1]]
