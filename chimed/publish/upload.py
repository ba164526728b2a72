"""Where a build is written, a folder or a store: taken only where it is a build's; each stage's manifest last."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from chimed.errors import BuildError
from chimed.outcome import Progress
from chimed.remote import Store
from chimed.sources.spec import STAGES

LEDGER, MANIFEST, MARK = "ledger.parquet", "manifest.json", ".work/mark"
_SHARD = re.compile(r"[a-z]+-\d{5}-of-\d{5}\.parquet")


def claim(out: Path) -> None:
    """Take an output folder that is new, empty or a build's; leave anything else alone."""
    if out.exists() and not out.is_dir():
        raise BuildError(f"{out}: is a file; give --out a folder that is new or holds an earlier build")
    _only_own(str(out), [p.name for p in out.iterdir() if not _stage_folder(p)] if out.exists() else [])
    try:
        (out / ".work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{out}: cannot be written ({error.strerror}); give --out another folder") from error


def _stage_folder(path: Path) -> bool:
    return path.name in STAGES and (path / "manifest.json").is_file()


def claim_store(out: Store) -> None:
    """Take a store that is new, empty or a build's; leave anything else alone, with a BuildError.

    A mark says that it is a build's: sending a stage may have been cut off, and has no rename.
    """
    top = out.top()
    begun = ".work" in top
    stages = {name for name in top & set(STAGES) if begun or out.read(f"{name}/{MANIFEST}")}
    _only_own(out.shown, top - stages)
    if not begun:  # writing it tells early, too, whether anything can be written there
        out.write(MARK, b"chimed build\n")


def _only_own(where: str, names: Collection[str]) -> None:
    """Raise BuildError where a folder of a build holds names that no build leaves."""
    own = {".work", "ledger.parquet", "ledger.parquet.partial", "report.html", "report.html.partial"}
    if foreign := sorted(set(names) - own):
        raise BuildError(
            f"{where}: holds something else ({', '.join(foreign[:3])}); "
            "give --out a folder that is new or holds an earlier build"
        )


def upload(store: Store, stages: Collection[str], progress: Progress) -> None:
    """Send what the mirror has of these stages, and the ledger; nothing where the store has it already.

    A stage has no manifest there until it is whole. Shards that an earlier build left of it are removed, and nothing
    else. Raises BuildError where the store refuses.
    """
    there = {name: size for folder in (LEDGER, *stages) for name, (size, _) in store.files(folder).items()}
    plans = {stage: _plan(store, stage, there) for stage in stages}
    changed = {stage: plan for stage, plan in plans.items() if any(plan)}
    ledger = [LEDGER] if changed or there.get(LEDGER) != _size(store.root / LEDGER) else []
    sizes = [_size(store.root / name) for name in (*ledger, *(name for send, _ in changed.values() for name in send))]
    advance = progress.step("send finished files", sum(sizes))
    store.push(ledger, advance)
    for stage, (send, stale) in changed.items():
        manifest = f"{stage}/{MANIFEST}"
        store.remove([name for name in (manifest, *stale) if name in there])
        store.push([name for name in send if name != manifest], advance)
        store.push([manifest], advance)


def _plan(store: Store, stage: str, there: dict[str, int]) -> tuple[list[str], list[str]]:
    """The names to send, manifest included where anything differs, and those to remove."""
    folder = store.root / stage
    new = (folder / MANIFEST).read_bytes()
    old = store.read(f"{stage}/{MANIFEST}") if f"{stage}/{MANIFEST}" in there else None
    files, before = json.loads(new)["files"], _files(old)
    send = [
        f"{stage}/{name}"
        for name, digest in files.items()
        if before.get(name) != digest or there.get(f"{stage}/{name}") != _size(folder / name)
    ]
    left = [name.removeprefix(f"{stage}/") for name in there if name.startswith(f"{stage}/")]
    stale = [name for name in left if name not in files and (name in before or _SHARD.fullmatch(name))]
    if send or stale or old != new:
        send.append(f"{stage}/{MANIFEST}")
    return send, [f"{stage}/{name}" for name in stale]


def _files(manifest: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(manifest or b"{}").get("files", {})
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size
