"""docs/publish.md: its transcripts are what the commands print on the sample. UPDATE_GOLDEN=1 writes them anew.

With CHIMED_REAL=DIR, where DIR/real and DIR/strict are builds from raw files, those of the real build are written too.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets", reason="needs the hub extra: pip install -e '.[hub]'")

PAGE = Path(__file__).parents[3] / "docs" / "publish.md"
BLOCK = re.compile(r"(<!-- the Hub answers (\d+) -->\n)?```(console|py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _run(command: list[str], folder: Path, hub: Any) -> str:
    own = {"COLUMNS": "80", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "home"), "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    told = done.stdout.decode().replace(hub.address, "https://huggingface.co")
    told = re.sub(r"\bbuild-[0-9a-f]{12}\b", "build-0123456789ab", told)  # of the code too, so of no transcript
    told = re.sub(r"(?<= files, )0\.\d(?= MB)", "0.3", told)  # what was measured is in it too
    return "".join(f"{line.rstrip()}\n" for line in told.splitlines())


def _transcript(block: re.Match[str], folder: Path, hub: Any) -> str:
    """The block with what its commands print now."""
    hub.faults = [["/commit/", int(block[2]), -1]] if block[2] else []
    told = ""
    for line in re.findall(r"^\$ (.*)$", block[4], re.MULTILINE):
        command, _, head = line.partition(" | head -")
        printed = _run([sys.executable, "-m", "chimed.cli", *command.split()[1:]], folder, hub)
        told += f"$ {line}\n" + "".join(printed.splitlines(keepends=True)[: int(head) if head else None])
    return f"{block[1] or ''}```console\n{told}```"


def test_transcripts_are_what_the_commands_print(hub: Any, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "out")
    recipe = files("chimed").joinpath("chimed.yaml").read_text(encoding="utf-8")
    (tmp_path / "strict.yaml").write_text(re.sub(r"(?m)^near: [0-9.]*", "near: 0.95", recipe), encoding="utf-8")
    build = ["-m", "chimed.cli", "build", "--stage", "all", "--recipe", "strict.yaml", "--out", "strict"]
    subprocess.run([sys.executable, *build], cwd=tmp_path, check=True, capture_output=True)
    page = PAGE.read_text(encoding="utf-8")
    sample, mark, real = page.partition("## A real build\n")

    def again(block: re.Match[str]) -> str:
        if block[3] == "console":
            return _transcript(block, tmp_path, hub)
        hub.faults = []
        command = [sys.executable, "-W", "ignore", "-c", f"{block[4]}\nprint('loaded')"]
        assert _run(command, tmp_path, hub).endswith("loaded\n")
        return block[0]

    now = BLOCK.sub(again, sample) + mark
    if given := os.environ.get("CHIMED_REAL"):
        hub.reset()
        shutil.rmtree(tmp_path / "strict")
        for own in Path(given).iterdir():
            (tmp_path / own.name).symlink_to(own.resolve())
        now += BLOCK.sub(again, real)
    else:
        now += real
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(now, encoding="utf-8")
    else:
        assert now == page, "run `UPDATE_GOLDEN=1 python -m pytest tests/e2e/hub/test_publish_page.py`"
