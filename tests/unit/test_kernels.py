"""A kernel that calls one of another file runs the code that is there."""

import os
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


# Of each kernel that was compiled for more than one set of types, for how many.
TYPES = """
import sys
from chimed.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
from numba.core.dispatcher import Dispatcher
for name, module in sorted(sys.modules.items()):
    for kernel in vars(module).values() if name.startswith("chimed.") else ():
        if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == name:
            print(name, kernel.py_func.__name__, len(kernel.nopython_signatures), file=sys.stderr)
"""


def test_kernels_are_compiled_once(tmp_path: Path) -> None:
    """The first run on a machine waits for each set of types that a kernel is called with."""
    command = [sys.executable, "-c", TYPES, "build", "--stage", "sft", "--out", str(tmp_path / "out")]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stderr
    compiled = {
        tuple(line.split()[:2]): int(line.split()[2]) for line in told.splitlines() if line.startswith("chimed.")
    }
    assert len([count for count in compiled.values() if count]) > 40
    assert {kernel: count for kernel, count in compiled.items() if count > 1} == {
        ("chimed.dedup.minhash", "gram_hashes"): 2  # for grams of two sizes
    }
