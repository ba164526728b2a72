"""Compiled kernels that outlived their code.

numba compiles a kernel anew where its own file has changed, but not where one that it calls has, in another file (a
known limit of its cache). In a checkout that was edited or pulled, old code would run and nothing would tell.
"""

import hashlib
from pathlib import Path


def refresh(root: Path) -> None:
    """Delete what numba has compiled below `root` unless it was compiled from the kernels that are there now.

    A file beside them holds the digest of all files with kernels. What numba keeps elsewhere, because `root` cannot be
    written or `NUMBA_CACHE_DIR` says so, is not looked at. Raises OSError where a file cannot be read or deleted.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if b"njit" in (code := path.read_bytes()):
            digest.update(code)
    mark = root / "__pycache__" / "kernels.sha256"
    if mark.exists() and mark.read_text() == digest.hexdigest():
        return
    for path in root.rglob("__pycache__/*.nb[ic]"):
        path.unlink(missing_ok=True)
    mark.parent.mkdir(exist_ok=True)
    mark.write_text(digest.hexdigest())
