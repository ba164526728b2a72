"""Earlier builds that a new one is compared with: what of them stays, and what a later one will need of this one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chimed import corpus
from chimed.corpus import Prepared
from chimed.errors import BuildError

_FILE = "build.json"
# What keys and texts of parts are made by: those of another version cannot be compared.
_CODE = ("records.py", "keys.py", "text.py", "characters.py", "dedup")


@dataclass(frozen=True, slots=True)
class Earlier:
    """The training rows of earlier builds: their parts, the folder of decisions of each, its number there."""

    parts: tuple[Prepared, ...] = ()
    decisions: tuple[Path, ...] = ()
    numbers: tuple[int, ...] = ()

    def gone(self, shape: str) -> npt.NDArray[np.bool_]:
        """Which rows of a shape are in no stage of their build, part by part."""
        found = [np.zeros(0, np.bool_)]
        for decisions, number in zip(self.decisions, self.numbers, strict=True):
            decision = corpus.read(decisions / f"{shape}.arrow")
            found.append(~decision.stays[decision.part(number)])
        return np.concatenate(found)


def load(folders: Sequence[Path]) -> Earlier:
    """The training rows of the builds in these folders. Raises BuildError where they cannot be compared with."""
    parts: list[Prepared] = []
    decisions: list[Path] = []
    numbers: list[int] = []
    for folder in folders:
        work = folder / ".work"
        try:
            found = json.loads((work / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BuildError(
                f"{folder}: no finished build to compare with; --against names the --out of one, with its folder .work"
            ) from None
        if found["keys"] != _keys_digest():
            raise BuildError(f"{folder}: was built by a version whose keys cannot be compared; build it again first")
        for number, (name, source, files, split, kept) in enumerate(found["parts"]):
            if split == "train":
                rows = tuple((file, count) for file, count in files)
                # The rank before all others: of two rows that are alike the earlier one stays.
                parts.append(Prepared(work / "parts" / name, source, rows, -1, split, kept))
                decisions.append(work / "corpus" / found["corpus"])
                numbers.append(number)
    if lost := [part.folder for part in parts if not part.folder.is_dir()]:
        raise BuildError(f"{lost[0]}: is gone; build that folder again before you compare with it")
    return Earlier(tuple(parts), tuple(decisions), tuple(numbers))


def save(work: Path, digest: str, parts: Sequence[Prepared]) -> None:
    """Leave what a later build needs to compare its rows with this one. digest: of the decisions of these parts."""
    told = [(part.folder.name, part.source, part.files, part.split, part.kept) for part in parts]
    content = json.dumps({"corpus": digest, "keys": _keys_digest(), "parts": told}, ensure_ascii=False)
    path, partial = work / _FILE, work / f"{_FILE}.partial"
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return  # a finished build is left as it is
    partial.write_text(content, encoding="utf-8")
    partial.rename(path)


def _keys_digest() -> str:
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(
        path for name in _CODE for path in ([root / name] if "." in name else (root / name).glob("*.py"))
    ):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
