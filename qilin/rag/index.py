"""An index of passages on disk, built from the rag stage: by their words, and by an encoder where one is given.

    index.json           what the index holds and which folder it is in, written last by rename
    index-<digest>/      passages.arrow, bm25/, dense/, purged.jsonl
    encode-<digest>/     what a build that was killed has encoded: the next one goes on from it

A build of other data or settings goes into a folder of its own, and the old index serves until the new one is whole.
Of the old one it takes the vectors of every text that is still there; the words of all passages are indexed anew, for
the score of each hangs on all of them, and 100,000 take seconds.
"""

import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qilin.data import Stage, open_stage, verify
from qilin.errors import RunError
from qilin.rag.dense import Dense, Store, keys, write_dense
from qilin.rag.encode import Encoder, find_encoder
from qilin.rag.leaks import GRAM, SHARE, WHAT, Leaks
from qilin.rag.passages import COLUMNS, SCHEMA, Passages, read
from qilin.rag.tokens import Words, fold, joined, missing, tokenizer
from qilin.rag.words import Writer
from qilin.run import write_json

Progress = Callable[[int, int, str], None]

FORMAT = 1
_INDEX = "index.json"
_ITEMS = ("id", "kind", *WHAT)
_NEEDED = {"tantivy": "tantivy"}
_NEEDED_TO_ENCODE = {"faiss": "faiss-cpu", "sentence_transformers": "sentence-transformers"}


@dataclass(frozen=True, slots=True)
class Index:
    """A finished index.

    leaked: passages that hold an evaluation item, by what of it they hold; they stay, marked, and are left out of
    searches unless asked for; None where no evaluation items were given. added, removed, encoded: what this build
    changed, against the index that was there. built: whether there was anything to do.
    """

    folder: Path
    digest: str
    passages: int
    words: Words
    encoder: str
    dimensions: int
    leaked: Mapping[str, int] | None = None
    added: int = 0
    removed: int = 0
    encoded: int = 0
    built: bool = False

    def __str__(self) -> str:
        how = f"BM25 by {self.words}" + (f", {self.dimensions} dimensions of {self.encoder}" if self.encoder else "")
        change = f"{self.added:,} added, {self.removed:,} removed, {self.encoded:,} encoded"
        return (
            f"{self.folder}: {self.passages:,} passages ({how}); "
            f"{change if self.built else 'nothing new, so nothing was done'}; {self._purged()}"
        )

    def _purged(self) -> str:
        if self.leaked is None:
            return "not compared with evaluation items, for that give --eval"
        kinds = ", ".join(f"{what} {count:,}" for what, count in self.leaked.items())
        return f"{sum(self.leaked.values()):,} purged for holding evaluation items" + (f" ({kinds})" if kinds else "")


def build(
    data: Path,
    out: Path,
    *,
    encoder: str | None = None,
    words: Words = "bigrams",
    eval_data: Path | None = None,
    progress: Progress | None = None,
) -> Index:
    """Index the passages of a rag stage in the folder `out`; nothing is done twice.

    encoder: folder or Hub name of a sentence-transformers model, for dense search; None gives BM25 alone. eval_data:
    the eval stage whose items must not be found: passages that hold one are marked and listed in purged.jsonl, one line
    each. Raises DataError, ModelError, and RunError when the folder cannot be written or is being written.
    """
    stage, items = open_stage(data, "rag"), open_stage(eval_data, "eval") if eval_data else None
    for opened in (stage, items):
        if opened:
            verify(opened)
    tokenizer(words)
    for module, package in (_NEEDED | (_NEEDED_TO_ENCODE if encoder else {})).items():
        if find_spec(module) is None:  # said now, not after hours of encoding
            raise missing(package)
    work = _Work(stage, items, find_encoder(encoder) if encoder else None, words)
    # A folder by its whole path: questions may be asked from elsewhere.
    name = str(Path(encoder).resolve()) if encoder and Path(encoder).is_dir() else encoder or ""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            return work.done(out) or work.run(out, name, progress or (lambda done, total, what: None))
    except OSError as error:
        why = error.strerror or error
        raise RunError(f"{out} cannot be written ({why}); make room there or give another folder") from error


def read_index(out: Path) -> dict[str, Any]:
    """What index.json says. Raises RunError: no index there, an unfinished one, or one of another version."""
    try:
        content: dict[str, Any] = json.loads((out / _INDEX).read_bytes())
    except FileNotFoundError:
        if any(out.glob("index-*")) or any(out.glob("encode-*")):
            raise RunError(f"{out} is an unfinished index; run the same `qilin index` again, it goes on") from None
        raise RunError(f"{out} is no index; build one with `qilin index DATA --out {out}`") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{out / _INDEX} cannot be read ({error}); build the index again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise RunError(f"{out} is an index of format {found}, this version reads format {FORMAT}; build it again")
    return content


@dataclass(frozen=True)
class _Work:
    """One build: what goes in."""

    stage: Stage
    items: Stage | None
    encoder: Encoder | None
    words: Words

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what is found."""
        return {
            "data": self.stage.digest,
            "eval": [self.items.digest, GRAM, SHARE] if self.items else None,
            "encoder": self.encoder.digest if self.encoder else None,
            "words": self.words,
        }

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([FORMAT, self.settings]).encode()).hexdigest()

    def done(self, out: Path) -> Index | None:
        """The index that is there, if it is this one."""
        content = _whole(out)
        return _index(out, content) if content and content["digest"] == self.digest else None

    def run(self, out: Path, name: str, progress: Progress) -> Index:
        """Write the index beside the one that is there, then let index.json speak of it; `name` is the encoder's."""
        earlier = _whole(out)
        folder = out / f"index-{self.digest[:16]}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        leaked = self._write(folder, progress)
        passages = Passages(folder / "passages.arrow")
        before = Passages(out / earlier["folder"] / "passages.arrow") if earlier else None
        encoded, dimensions = 0, 0
        if self.encoder:
            old = None
            if before and earlier and earlier["settings"]["encoder"] == self.encoder.digest:
                old = before.keys, Dense(out / earlier["folder"] / "dense")
            store = Store(out / f"encode-{self.encoder.digest[:16]}", old)
            encoded = self._encode(passages, store, progress)
            dimensions = write_dense(folder / "dense", passages.keys, store, _named(progress, "index vectors"))
        content = {
            "format": FORMAT,
            "digest": self.digest,
            "folder": folder.name,
            "settings": self.settings,
            "passages": len(passages),
            "words": self.words,
            "encoder": name,
            "dimensions": dimensions,
            "leaked": leaked if self.items else None,
            "files": _sizes(folder),
        }
        now, then = _marks(passages), _marks(before) if before else np.zeros(0, "S16")
        write_json(out / _INDEX, content)
        for other in (*out.glob("index-*"), *out.glob("encode-*")):
            if other != folder and other.is_dir():
                shutil.rmtree(other)
        added, removed = (int((~np.isin(*pair)).sum()) for pair in ((now, then), (then, now)))
        return replace(_index(out, content), added=added, removed=removed, encoded=encoded, built=True)

    def _write(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the passages, their words and the list of leaks; how many leaks there are, by what they hold."""
        leaks = Leaks(map(pa.table, _items(self.items))) if self.items else None
        cut, counts, done = tokenizer(self.words), Counter[str](), 0
        words = Writer(folder / "bm25")
        with (
            pa.OSFile(str(folder / "passages.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as file,
            (folder / "purged.jsonl").open("w", encoding="utf-8") as purged,
        ):
            for batch in read(self.stage.splits["train"], COLUMNS):
                progress(done, self.stage.rows["train"], "index words")
                found = leaks.find(batch["title"], batch["text"]) if leaks else {}
                for row, leak in found.items():
                    own = {name: batch[name][row].as_py() for name in ("id", "source")}
                    purged.write(json.dumps(own | leak._asdict(), ensure_ascii=False) + "\n")
                counts.update(leak.what for leak in found.values())
                whole = joined(batch["title"], batch["text"])
                words.add([cut(text) for text in fold(whole).to_pylist()])
                marked = pa.array(np.isin(np.arange(len(batch)), list(found)))
                key = pa.array(keys(whole.to_pylist()).tolist(), SCHEMA.field("key").type)
                file.write_batch(pa.record_batch([*batch.columns, marked, key], SCHEMA))
                done += len(batch)
        words.close()
        progress(done, done, "index words")
        return {what: counts[what] for what in WHAT if counts[what]}

    def _encode(self, passages: Passages, store: Store, progress: Progress) -> int:
        """Encode the texts that have no vector yet, long ones first; how many."""
        _, first = np.unique(passages.keys, return_index=True)
        wanted = first[store.lacks(passages.keys[first])]
        if len(wanted) and self.encoder:
            order = np.lexsort((wanted, -passages.lengths[wanted]))
            store.fill(wanted[order], passages.texts, self.encoder.load(), _named(progress, "encode"))
        return len(wanted)


def _items(stage: Stage) -> Iterator[pa.RecordBatch]:
    for files in stage.splits.values():
        yield from read(files, _ITEMS)


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(done, total, what)


def _marks(passages: Passages) -> NDArray[np.bytes_]:
    """What stands for each passage: its id and its text."""
    pairs = zip(passages.ids(), passages.keys.tolist(), strict=True)
    return keys([f"{id_} {key.hex()}" for id_, key in pairs])


def _index(out: Path, content: Mapping[str, Any]) -> Index:
    names = ("digest", "passages", "words", "encoder", "dimensions", "leaked")
    return Index(out, **{name: content[name] for name in names})


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def _whole(out: Path) -> dict[str, Any] | None:
    """What index.json says of an index whose files are all there and uncut; None otherwise."""
    try:
        content = read_index(out)
    except RunError:
        return None
    return content if content["files"] == _sizes(out / content["folder"]) else None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"{out}: another process writes this index; wait for it or give another folder") from None
        yield
