"""What must not train: the texts of evaluation items, gathered part by part, and the index that finds them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from chimed.corpus import Prepared
from chimed.keys import evaluation_texts, options_of
from chimed.leakage import Index


@dataclass(slots=True)
class Evaluation:
    """Folded texts with the numbers of their items; id and options of each item."""

    texts: list[tuple[pa.Array, np.ndarray[Any, Any]]] = field(default_factory=list)
    options: list[pa.Array] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def add(self, part: Prepared, held: bool) -> None:
        """Add the items of a part; held: whether it has rejected ones too."""
        if held:
            table = _mapped(part.folder / "held.arrow")
            self._add(table, table["text"].combine_chunks(), np.arange(len(table)), table["options"].combine_chunks())
        for shape in (name for name, count in part.kept.items() if count):
            table = _mapped(part.folder / f"{shape}.arrow")
            texts, owner = evaluation_texts(shape, table)
            if len(texts):
                self._add(table, texts, owner, options_of(shape, table))

    def _add(self, table: pa.Table, texts: pa.Array, owner: np.ndarray[Any, Any], options: pa.Array) -> None:
        self.texts.append((texts, owner.astype(np.int32) + np.int32(len(self.ids))))
        self.options.append(options)
        self.ids += table["id"].to_pylist()

    def index(self, work: Path, code: str) -> Path | None:
        """The file of their index, written where it is new; None without a text. code: digest of what makes it."""
        if not self.texts:
            return None
        texts, owned = zip(*self.texts, strict=True)
        joined, options, owners = pa.concat_arrays(texts), pa.concat_arrays(self.options), np.concatenate(owned)
        digest = hashlib.sha256(code.encode() + owners.tobytes() + "\n".join(self.ids).encode())
        for buffer in (*joined.buffers(), *options.buffers()):
            digest.update(memoryview(buffer) if buffer else b"")
        path = work / f"index-{digest.hexdigest()[:24]}.npz"
        if not path.exists():
            partial = path.with_name(f"partial-{path.name}")
            Index.build(joined, owners, options).save(partial)
            partial.rename(path)
        return path


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
