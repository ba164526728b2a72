"""The stage folders that `chimed build` wrote, opened for training, retrieval and evaluation."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow.parquet as pq
from pyarrow import ArrowException

from qilin.errors import DataError

_TEXT = {
    "cpt": ("text",),
    "sft": ("messages",),
    "dpo": ("prompt", "chosen", "rejected"),
    "eval": ("source", "kind", "question", "options", "answer", "messages"),
    "rag": ("source", "title", "text"),
}
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stage:
    """A complete stage folder.

    digest: sha256 over the names and hashes of the data files: equal digests, equal rows.
    splits: the Parquet files of "train" and, where there are any, "validation", in order. rows: how many they hold.
    """

    folder: Path
    stage: str
    digest: str
    splits: Mapping[str, tuple[Path, ...]]
    rows: Mapping[str, int]
    hashes: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold what is trained on, searched or asked."""
        return _TEXT[self.stage]


def open_stage(path: Path, stage: str) -> Stage:
    """The stage folder, its files there, readable and with as many rows as its manifest says.

    Raises DataError without a manifest, for another stage, and for files that are missing, cut off or empty. That the
    bytes are those that were built, `verify` says; it reads them all.
    """
    manifest = _manifest(path)
    found = manifest["stage"]
    if found != stage:
        raise DataError(f"{path} holds data for the stage {found}, not {stage}: give the folder {path.parent / stage}")
    files: Mapping[str, str] = manifest["files"]
    hashes = {name: files[name] for name in sorted(files) if name.endswith(".parquet")}
    splits = {
        split: tuple(path / name for name in hashes if name.startswith(f"{split}-")) for split in manifest["rows"]
    }
    rows = {split: sum(_rows(file, _TEXT[stage]) for file in paths) for split, paths in splits.items()}
    for split, count in rows.items():
        if count != manifest["rows"][split]:
            raise DataError(
                f"{path}: the files of the split {split} hold {count} rows, the manifest says "
                f"{manifest['rows'][split]}; build the folder again"
            )
    if stage == "eval" and not any(rows.values()):
        raise DataError(f"{path} holds no items; give the build sources with evaluation splits, such as cmexam")
    if stage != "eval" and not rows.get("train"):
        raise DataError(f"{path}: the split train is empty; give the build more sources or a smaller validation part")
    text = json.dumps({name: value for name, value in hashes.items() if name.startswith(tuple(splits))})
    digest = hashlib.sha256(text.encode()).hexdigest()
    kept = {split: paths for split, paths in splits.items() if rows[split]}
    return Stage(path, stage, digest, MappingProxyType(kept), MappingProxyType(rows), MappingProxyType(hashes))


def verify(stage: Stage) -> None:
    """Compare every data file with the hash in the manifest; DataError names a file that changed since the build."""
    for name, expected in stage.hashes.items():
        digest = hashlib.sha256()
        with (stage.folder / name).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != expected:
            raise DataError(f"{stage.folder / name} has changed since it was built; build the folder again")


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest's content, complete as far as it is read here."""
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        why = "has no manifest.json, so it is not a finished build" if path.is_dir() else "is not a folder"
        raise DataError(
            f"{path} {why}; give a stage folder that `chimed build` made, such as out/sft or out/rag"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); build the folder again") from error
    kinds = {"stage": str, "rows": dict, "files": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{file} is not a manifest of `chimed build`: it lacks one of {', '.join(kinds)}")
    return manifest


def _rows(file: Path, columns: tuple[str, ...]) -> int:
    """The rows that the footer of a Parquet file speaks of."""
    try:
        with pq.ParquetFile(file) as parquet:
            missing = {"id", *columns} - set(parquet.schema_arrow.names)
            count: int = parquet.metadata.num_rows
    except FileNotFoundError as error:
        raise DataError(f"{file} stands in the manifest but is missing; build the folder again") from error
    except (OSError, ArrowException) as error:
        raise DataError(f"{file} is not a readable Parquet file ({error}); build the folder again") from error
    if missing:
        raise DataError(f"{file} lacks the columns {', '.join(sorted(missing))}; build the folder again")
    return count
