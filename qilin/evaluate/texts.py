"""How likely a model finds held-out passages, in bits a byte: a figure that no tokenizer changes."""

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from qilin.data import open_stage
from qilin.errors import DataError
from qilin.evaluate import stats
from qilin.evaluate.exam import chosen
from qilin.evaluate.model import Answerer
from qilin.evaluate.recipe import Recipe

Line = Mapping[str, Any]


def measure(
    recipe: Recipe, answerer: Answerer, store: sqlite3.Connection, progress: Callable[[int, int, str], None]
) -> list[dict[str, Any]]:
    """One line a held-out passage: its set, id, bytes, tokens, and how improbable it is, in nats.

    Every token is predicted, the first from the end-of-text token alone, a later one from those before it in its window
    of `texts.length` tokens. What the store holds is not read again. Raises DataError for what is no cpt stage.
    """
    said = recipe.texts
    if said is None:
        return []
    asked = [(name, *one) for name, folder in said.sets.items() for one in _read(folder, said.rows, recipe.seed)]
    lines = []
    for name, id_, text in asked:
        key = _key(answerer.digest, said.length, text)
        known = store.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        found = (
            json.loads(known[0])
            if known
            else dict(zip(("tokens", "nats"), _nats(answerer.reader, text, said.length), strict=True))
        )
        if not known:
            with store:
                store.execute("INSERT INTO answers VALUES (?, ?)", (key, json.dumps(found)))
        lines.append({"set": name, "id": id_, "bytes": len(text.encode()), **found})
        progress(len(lines), len(asked), "passages")
    return lines


def scores(lines: Sequence[Line], seed: int) -> dict[str, Any]:
    """By set: documents, bytes, tokens, bits a byte with the bootstrap interval over documents, and perplexity."""
    found = {}
    for name in dict.fromkeys(line["set"] for line in lines):
        own = [line for line in lines if line["set"] == name]
        total = {key: sum(line[key] for line in own) for key in ("bytes", "tokens", "nats")}
        found[name] = {
            "n": len(own),
            "bytes": total["bytes"],
            "tokens": total["tokens"],
            "bits_per_byte": bits(own, seed=seed),
            "perplexity": math.exp(min(total["nats"] / total["tokens"], 700)),
        }
    return found


def bits(lines: Sequence[Line], before: Sequence[Line] = (), *, seed: int) -> dict[str, float]:
    """Bits a byte over all passages with a 95 % interval or, of two models on the same ones, how many more.

    The interval is a bootstrap over passages; of a single one there is none, and both ends are the figure.
    """
    columns = [[line["bytes"] for line in lines], *([line["nats"] for line in own] for own in (lines, before) if own)]
    table = np.array(columns, dtype=np.float64).T

    def ratio(rows: stats.Values) -> float:
        sums = rows.sum(axis=0)
        return float((sums[1] - (sums[2] if len(sums) > 2 else 0)) / sums[0] / math.log(2))

    if len(table) < 2:
        value = ratio(table)
        return {"value": value, "low": value, "high": value, "n": len(table)}
    found = stats.bootstrap(table, ratio, seed=seed)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _read(folder: Path, rows: int | None, seed: int) -> list[tuple[str, str]]:
    """The id and text of held-out passages."""
    stage = open_stage(folder, "cpt")
    files = stage.splits.get("validation", ())
    pairs = [
        (row["id"], row["text"]) for file in files for row in pq.read_table(file, columns=["id", "text"]).to_pylist()
    ]
    if not pairs:
        raise DataError(f"{folder} holds no passages out; build it with a `validation` share above 0")
    return [pairs[place] for place in chosen([id_ for id_, _ in pairs], rows, seed)]


def _key(answerer: str, length: int, text: str) -> str:
    return hashlib.sha256(json.dumps(["text", answerer, length, text], ensure_ascii=False).encode()).hexdigest()


def _nats(reader: Any, text: str, length: int) -> tuple[int, float]:
    """How many tokens a text has, and how improbable all of them are together."""
    ids = [reader.tokenizer.eos_token_id, *reader.tokenizer.encode(text, add_special_tokens=False)]
    room = min(length, reader.room)
    windows = [ids[begin : begin + room] for begin in range(0, len(ids) - 1, room - 1)]
    return len(ids) - 1, sum(map(reader.nats, windows))
