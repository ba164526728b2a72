"""What several tests share: the folder of raw source files."""

import os
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]
UNPACK = REPOSITORY.parent / "shared" / "data" / "unpack"


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder RAW with the real raw files as RAW/<source>/…: $CHIMED_RAW, or unpacked once for all xdist workers."""
    if given := os.environ.get("CHIMED_RAW"):
        return Path(given)
    if not UNPACK.exists():
        pytest.skip(f"no raw source files: set CHIMED_RAW to their folder (looked for {UNPACK})")
    own = tmp_path_factory.getbasetemp()
    # Each xdist worker has its own folder inside that of the run; a run without workers has only the latter.
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "raw"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name("raw-unfinished")
            subprocess.run([str(UNPACK), str(unfinished)], check=True)
            unfinished.rename(folder)
    return folder
