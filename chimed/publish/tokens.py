"""Tokens of a stage's rows, by the tokenizer that the recipe names."""

import importlib
import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from chimed.engine import Engine
from chimed.errors import BuildError
from chimed.outcome import Progress
from chimed.publish.finished import Finished
from chimed.stages import texts

_ROWS = 512  # encoded at a time: what an encoding takes is a hundred times its text


@dataclass(frozen=True, slots=True)
class Count:
    """A task for `count`: one row group of a shard."""

    path: Path
    group: int
    tokenizer: Path


def fetched(name: str) -> Path:
    """The tokenizer.json of a tokenizer on the Hub, named ORG/NAME or ORG/NAME@REVISION, from its cache where it is.

    Raises BuildError with the reason when it cannot be got.
    """
    repo, _, revision = name.partition("@")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise BuildError(_missing(name, "huggingface_hub")) from None
    try:
        return Path(hub.hf_hub_download(repo, "tokenizer.json", revision=revision or None))
    except Exception as error:  # of the client, of its HTTP library, of the disk: there is no common base
        reason = " ".join(str(error).split())[:200]
        raise BuildError(
            f"tokenizer {name}: cannot be got from the Hub ({reason}); name a tokenizer.json on disk in the recipe, or "
            "leave `tokenizer` out; finished parts are kept"
        ) from error


def _missing(name: str, package: str) -> str:
    return f"tokenizer {name}: counting tokens needs {package}: pip install 'chimed[cards]'"


@lru_cache(maxsize=1)
def load(path: Path) -> Any:
    """The tokenizer in a tokenizer.json, set to cut and to pad nothing. Raises BuildError when it cannot be used."""
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ImportError:
        raise BuildError(_missing(str(path), "tokenizers")) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing more exact
        raise BuildError(f"{path}: is no tokenizer.json that the package tokenizers reads ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokens(stage: Finished, tokenizer: Path, pool: Engine, progress: Progress) -> Counter[tuple[str, str]]:
    """Tokens of a stage by source and split: of its texts alone, without the marks of a chat template."""
    load(tokenizer)  # what is wrong with it is told once, by this process
    tasks, splits = [], []
    for split, paths in stage.shards().items():
        for path in paths:
            groups = pq.read_metadata(path).num_row_groups
            tasks += [Count(path, group, tokenizer) for group in range(groups)]
            splits += [split] * groups
    advance = progress.step(f"count tokens {stage.stage}", len(tasks))
    total: Counter[tuple[str, str]] = Counter()
    for number, counted in pool.map(count, tasks):
        for source, amount in counted.items():
            total[source, splits[number]] += amount
        advance(1)
    return total


def count(task: Count) -> dict[str, int]:
    """Tokens of a row group by source."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one task is one core
    tokenizer = load(task.tokenizer)
    total: Counter[str] = Counter()
    for batch in pq.ParquetFile(task.path).iter_batches(_ROWS, row_groups=[task.group]):
        sources = batch["source"].dictionary_encode()
        amounts = np.zeros(len(sources.dictionary), np.int64)
        for values, rows in texts(batch):
            encodings = tokenizer.encode_batch_fast(values.to_pylist(), add_special_tokens=False)
            lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
            amounts += np.bincount(sources.indices.to_numpy()[rows], lengths, len(amounts)).astype(np.int64)
        total.update(dict(zip(sources.dictionary.to_pylist(), amounts.tolist(), strict=True)))
    return dict(total)
