"""Length balance of preference pairs: a kind whose chosen replies are simply longer teaches length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chimed.preferences import balanced, ratio
from chimed.shards import Runs

_EMPTY = pa.schema(
    [("kind", pa.string()), ("chosen", pa.int32()), ("rejected", pa.int32()), ("shuffle", pa.uint64())]
).empty_table()


def balance(runs: Sequence[Runs], folder: Path) -> tuple[dict[str, dict[str, Any]], Path]:
    """Which pairs to leave out, kind by kind, so that the median of chosen to rejected lengths lies in 0.9 to 1.1.

    Returns, for each kind, the number of pairs made and kept and the median ratio before and after; and the file with
    the places in the shuffle of the pairs left out, ascending.
    """
    found = [table for run in runs for path in run.files.values() for table in [_lengths(path)]]
    pairs = pa.concat_tables([_EMPTY, *found])
    dropped: list[npt.NDArray[np.uint64]] = []
    told: dict[str, dict[str, Any]] = {}
    for kind in sorted(pairs["kind"].unique().to_pylist()):
        own = pairs.filter(pc.equal(pairs["kind"], kind))
        chosen, rejected, place = (own[name].to_numpy() for name in ("chosen", "rejected", "shuffle"))
        keep = balanced(chosen, rejected, place)
        dropped.append(place[~keep])
        after = ratio(chosen[keep], rejected[keep]) if keep.any() else None
        told[kind] = {"made": len(own), "kept": int(keep.sum()), "ratio": ratio(chosen, rejected), "ratio_kept": after}
    path = folder / "dropped.npy"
    folder.mkdir(parents=True, exist_ok=True)  # there is none when nothing was rendered
    np.save(path, np.sort(np.concatenate(dropped)) if dropped else np.zeros(0, np.uint64))
    return told, path


def _lengths(path: Path) -> pa.Table:
    """Kind, characters of the chosen and of the rejected reply and place in the shuffle of each pair of a run."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    columns = {
        name: pc.utf8_length(pa.chunked_array([_reply(chunk) for chunk in table[name].chunks]))
        for name in ("chosen", "rejected")
    }
    return pa.table({"kind": table["kind"], **columns, "shuffle": table["shuffle"]})


def _reply(replies: pa.ListArray) -> pa.Array:
    """The one turn of each reply."""
    return replies.flatten().field("content")
