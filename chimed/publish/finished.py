"""The finished stages of a build's folder, as `push` and `export` take them."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from chimed.errors import BuildError
from chimed.records import SPLITS
from chimed.sources.spec import STAGES


@dataclass(frozen=True, slots=True)
class Finished:
    """A stage's folder and its manifest."""

    stage: str
    folder: Path
    manifest: dict[str, Any]

    def shards(self) -> dict[str, list[Path]]:
        """The Parquet files of each split, in order."""
        names = sorted(name for name in self.manifest["files"] if name.endswith(".parquet"))
        found = {split: [self.folder / name for name in names if name.startswith(f"{split}-")] for split in SPLITS}
        return {split: paths for split, paths in found.items() if paths}


def finished(out: Path) -> list[Finished]:
    """Every stage that a build left in OUT. Raises BuildError when there is none, or a file of one is gone."""
    found = [_read(out / stage) for stage in STAGES if (out / stage / "manifest.json").is_file()]
    if not found:
        above = f"; name the folder above: {out.parent}" if (out / "manifest.json").is_file() else ""
        raise BuildError(f"{out}: holds no stage with a manifest.json{above}; name the --out of a chimed build")
    return found


def _within(name: str) -> bool:
    """Whether a name stays in the folder: a file there, or in a folder of it.

    >>> _within("plots/lengths.png"), _within("../secret"), _within("/secret"), _within("")
    (True, False, False, False)
    """
    path = PurePosixPath(name)
    return name == str(path) and not path.is_absolute() and ".." not in path.parts and 0 < len(path.parts) < 3


def _read(folder: Path) -> Finished:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names, usable = list(manifest["files"]), {"digest", "rows", "sources"} <= manifest.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        names, usable = [], False
    # A name that leads elsewhere would publish what the build never wrote.
    if not usable or manifest.get("stage") != folder.name or not all(map(_within, names)):
        raise BuildError(f"{path}: is no manifest of this stage; build it anew")
    gone = [
        name for name in names if not (folder / name).is_file() or (folder / name).resolve() != folder.resolve() / name
    ]
    if gone:
        raise BuildError(f"{folder}: {', '.join(gone[:3])} of the manifest is gone or a link; build the stage anew")
    return Finished(folder.name, folder, manifest)
