"""A newcomer's first minutes: the blocks of docs/quickstart.md, one after the other, on what a clone holds.

The first block installs into an environment of its own, from a package index: about a minute. That is why the test runs
only where CI is set, as it is wherever .ci/run counts; by hand: CI=1 python -m pytest tests/e2e/test_newcomer.py
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "quickstart.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MINUTES = 10  # that a block may take

pytestmark = pytest.mark.skipif(not os.environ.get("CI"), reason="installs from a package index; set CI=1 to run it")


def clone(folder: Path) -> None:
    """Copies what a clone would hold were everything committed: neither builds nor environments."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0")[:-1]:
        if (ROOT / name).is_file():  # one that was removed is listed until that is committed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def outside(home: Path) -> dict[str, str]:
    """The variables of a terminal in which no environment is active, with the Python that these tests run on."""
    ours = ("PYTHON", "PYTEST", "VIRTUAL_ENV")
    own = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = [part for part in own["PATH"].split(os.pathsep) if Path(part) != Path(sys.prefix) / "bin"]
    own["PATH"] = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), *path])
    return {**own, "HF_HOME": str(home), "NO_COLOR": "1"}


def run(language: str, code: str, folder: Path, variables: dict[str, str]) -> dict[str, str]:
    """Runs one block as it stands, and gives the variables that it leaves, as those of a terminal stay."""
    after = folder.with_name("variables")
    bash = ["bash", "-euo", "pipefail", "-c", f'{code}env -0 > "{after}"']
    done = subprocess.run(
        bash if language == "bash" else ["python", "-c", code],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60 * MINUTES,
    )
    assert done.returncode == 0, f"this block of {PAGE.name} ends in {done.returncode}:\n\n{code}\n{done.stdout}"
    if language == "bash":
        return dict(line.split("=", 1) for line in after.read_text(encoding="utf-8").split("\0")[:-1])
    return variables


def test_every_block_of_the_quick_start_runs(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    clone(folder)
    variables = outside(tmp_path / "home")
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        variables = run(language, code, folder, variables)
    assert Path(variables["VIRTUAL_ENV"]).samefile(folder / ".venv"), "the page installs into its own environment"
    assert (folder / "out" / "report.html").is_file()
    stages = {found.parent.relative_to(folder).as_posix() for found in folder.glob("*/*/manifest.json")}
    assert stages == {"out/sft", *(f"corpus/{stage}" for stage in ("cpt", "sft", "dpo", "rag", "eval"))}
