"""Data tokenised and packed once, to a folder that training maps into memory.

The folder's name holds the digest of all that decides its bytes: data, tokenizer, template, length, choice of rows,
seed and replay. Tokens go through one file on disk; what is held in memory is a few batches and a few numbers for each
document, however long the texts are.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qilin import template
from qilin.data import Stage, open_stage, verify
from qilin.documents import Loss, Pool, Task, few, pool, read
from qilin.errors import DataError, RunError
from qilin.shards import Store, write

if TYPE_CHECKING:
    from datasets import Dataset

    from qilin.recipe import Recipe

Progress = Callable[[int, int, str], None]

_FORMAT = 1  # of the folder; part of its digest
_FEW = 4096  # rows for which starting one more worker would take longer than it saves


@dataclass(frozen=True, slots=True)
class Counts:
    """What a split holds.

    rows: rows of `length` tokens (cpt, sft) or pairs (dpo). documents: those in it, truncated ones too. tokens: all in
    its rows; of a pair, those of both conversations. trained: tokens that carry loss; the first of a piece has nothing
    before it and carries none. pieces: what documents were cut into. fill: tokens by the room of the rows.
    """

    rows: int
    documents: int
    tokens: int
    trained: int
    dropped: int
    truncated: int
    pieces: int
    fill: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared folder. examples: the first documents that were dropped or truncated."""

    folder: Path
    stage: str
    digest: str
    splits: Mapping[str, Counts]
    examples: tuple[Loss, ...]

    def load(self, split: str) -> "Dataset":
        """The rows of "train", "validation" or "general" (the replay's validation), mapped into memory.

        Columns: input_ids, labels, seq_lengths (cpt, sft); prompt_ids, chosen_ids, rejected_ids (dpo).
        """
        from datasets import Dataset, concatenate_datasets

        if split not in self.splits:
            raise DataError(f"{self.folder} has no split {split}; it has {', '.join(self.splits)}")
        files = sorted(self.folder.glob(f"{split}-*.arrow"))
        return concatenate_datasets([Dataset.from_file(str(file)) for file in files])


def prepare(recipe: "Recipe", tokenizer: Any, *, workers: int = 1, progress: Progress | None = None) -> Prepared:
    """Tokenise and pack the recipe's data with the tokenizer, unless that was done before.

    cpt: an EOS after each document, longer ones cut into pieces; no token is lost. sft: loss on the replies and their
    end of turn alone; of a conversation that is too long the whole exchanges that fit stay, or none. dpo: a pair that
    is too long is dropped. cpt and sft are packed, best fit, the rows in an order drawn with the seed.

    The bytes are the same for any number of workers. Two processes that prepare the same folder take turns, and the
    second finds it done. Raises DataError, ModelError, and RunError when the folder cannot be written.
    """
    work = _Work.of(recipe, tokenizer)
    folder = recipe.data.prepared / f"{recipe.stage}-{work.digest[:16]}"
    if found := _finished(folder):
        return found
    try:
        with _locked(folder):
            return _finished(folder) or work.fill(folder, workers, progress or (lambda done, total, what: None))
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written ({error.strerror or error}); "
            "make room there, or set data.prepared to a folder on another disk"
        ) from error


@dataclass(frozen=True)
class _Work:
    """One preparation: what goes in."""

    recipe: "Recipe"
    data: Stage
    replay: Stage | None
    task: Task

    @classmethod
    def of(cls, recipe: "Recipe", tokenizer: Any) -> "_Work":
        data = open_stage(recipe.data.path, recipe.stage)
        replay = open_stage(recipe.data.replay.path, "cpt") if recipe.data.replay else None
        if (recipe.data.rows or 0) > data.rows["train"]:
            raise DataError(f"data.rows asks for {recipe.data.rows} documents, {data.folder} has {data.rows['train']}")
        encoder = template.Encoder.of(tokenizer)
        if recipe.stage != "cpt":
            encoder.end_of_turn()
        return cls(recipe, data, replay, Task(recipe.stage, encoder, recipe.data.length))

    @property
    def key(self) -> dict[str, Any]:
        """All that decides the bytes of the folder."""
        encoder, recipe = self.task.encoder, self.recipe
        chat = {"template": template.digest(encoder.template), "specials": encoder.specials}
        return {
            "format": _FORMAT,
            "stage": recipe.stage,
            "data": self.data.digest,
            "tokenizer": encoder.digest,
            **(chat if recipe.stage != "cpt" else {}),
            "length": recipe.data.length,
            "rows": recipe.data.rows,
            "seed": recipe.seed,
            "replay": [self.replay.digest, recipe.data.replay.share] if self.replay and recipe.data.replay else None,
        }

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.key, sort_keys=True, default=str).encode()).hexdigest()

    def fill(self, folder: Path, workers: int, progress: Progress) -> Prepared:
        """Make the folder: in a partial one beside it, renamed when all is there."""
        for stage in filter(None, (self.data, self.replay)):
            verify(stage)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        losses: list[Loss] = []
        splits: dict[str, Counts] = {}
        rows = sum(self.data.rows.values()) + (self.replay.rows["train"] if self.replay else 0)
        with pool(self.task, min(workers, 1 + rows // _FEW)) as encoders:
            for split in self._splits():
                with Store(partial / "tokens") as store:
                    self._tokenise(split, store, encoders, progress)
                    splits[split] = self._written(split, store, partial, progress)
                losses += store.losses
        content = {
            "digest": self.digest,
            "key": self.key,
            "splits": {split: asdict(counts) for split, counts in splits.items()},
            "examples": [loss._asdict() for loss in few(losses)],
            "files": {path.name: path.stat().st_size for path in sorted(partial.iterdir())},
        }
        (partial / "prepared.json").write_text(json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n")
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been taken
        partial.rename(folder)
        done = _finished(folder)
        assert done
        return done

    def _splits(self) -> list[str]:
        return [*self.data.splits, *(["general"] if self.replay and "validation" in self.replay.splits else [])]

    def _tokenise(self, split: str, store: Store, encoders: Pool, progress: Progress) -> None:
        """Fill the store with the documents of a split."""
        rows, replay = self.recipe.data.rows, self.recipe.data.replay
        if split == "general" and self.replay:
            _encode(encoders, store, (self.replay, "validation", None), progress)
            return
        drawn = _first(rows, self.data.rows[split], self.recipe.seed) if rows and split == "train" else None
        _encode(encoders, store, (self.data, split, drawn), progress)
        if split == "train" and self.replay and replay:
            wanted = int(store.lengths.sum() * replay.share / (1 - replay.share))
            _mix(encoders, store, (self.replay, wanted, self.recipe.seed), progress)

    def _written(self, split: str, store: Store, folder: Path, progress: Progress) -> Counts:
        documents = int((store.lengths.sum(axis=1) > 0).sum())
        if not documents:
            raise DataError(
                f"{self.data.folder}: of the split {split} no document fits into data.length {self.task.length}; "
                "make it longer"
            )
        written = write(store, split, folder, self.task.length, seed=self.recipe.seed, progress=progress)
        room = written.rows * self.task.length * (2 if self.recipe.stage == "dpo" else 1)
        return Counts(
            written.rows,
            documents,
            written.tokens,
            written.trained,
            store.dropped,
            store.truncated,
            written.pieces,
            written.tokens / room,
        )


def _encode(
    encoders: Pool, store: Store, what: tuple[Stage, str, NDArray[np.bool_] | None], progress: Progress
) -> None:
    """Add the chosen rows of a split to the store."""
    stage, split, chosen = what
    total = stage.rows[split] if chosen is None else int(chosen.sum())
    done = 0
    for block in encoders.blocks(read(stage.splits[split], stage.columns, chosen)):
        store.add(block)
        done += len(block.lengths)
        progress(done, total, f"tokenise {split}")


def _mix(encoders: Pool, store: Store, what: tuple[Stage, int, int], progress: Progress) -> None:
    """Add to the store, in an order drawn with the seed, as many replayed documents as make up the wanted tokens."""
    stage, wanted, seed = what
    count = stage.rows["train"]
    order = np.random.default_rng(seed).permutation(count)
    place = np.argsort(order)
    tokens = np.zeros(count, np.int64)  # of each document, in drawn order
    before, main = len(store.lengths), int(store.lengths.sum())
    mean, done = main / before, 0
    places: list[NDArray[np.int64]] = []
    while (have := int(tokens.sum())) < wanted:
        if done == count:
            most = have / (have + main)
            raise DataError(
                f"{stage.folder} holds {have} tokens, too few for data.replay.share: "
                f"at most {most:.3f} of the trained tokens can come from it"
            )
        more = min(count - done, int((wanted - have) / max(mean, 1) * 1.05) + 16)
        chosen = np.zeros(count, np.bool_)
        chosen[order[done : done + more]] = True
        at = len(store.lengths)
        _encode(encoders, store, (stage, "train", chosen), progress)
        places.append(place[np.flatnonzero(chosen)])
        tokens[places[-1]] = store.lengths[at:].sum(axis=1)
        done += more
        mean = tokens.sum() / done
    if places:
        last = int(np.searchsorted(np.cumsum(tokens), wanted))
        store.leave_out(before + np.flatnonzero(np.concatenate(places) > last))


def _first(rows: int, of: int, seed: int) -> NDArray[np.bool_]:
    """So many rows, drawn with the seed: a larger choice holds a smaller one."""
    chosen = np.zeros(of, np.bool_)
    chosen[np.random.default_rng(seed).permutation(of)[:rows]] = True
    return chosen


def _finished(folder: Path) -> Prepared | None:
    """The folder as it was prepared, None if it is not there or not whole."""
    try:
        content = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
        if any((folder / name).stat().st_size != size for name, size in content["files"].items()):
            return None
        splits = {split: Counts(**counts) for split, counts in content["splits"].items()}
        examples = tuple(Loss(**loss) for loss in content["examples"])
        return Prepared(folder, content["key"]["stage"], content["digest"], splits, examples)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process prepares this folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
