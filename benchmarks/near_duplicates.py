"""Near-duplicate removal side by side on one input.

    python benchmarks/corpus.py RAW texts.parquet --texts 200000
    python benchmarks/near_duplicates.py texts.parquet --peers FOLDER [--tools rensa command --rounds 7]

With several rounds, tool after tool in each, the figures are those of the round with a tool's median wall time.

Each tool runs in a process of its own and says for every text which text it repeats, or -1. Printed for each: wall and
CPU seconds and peak memory of the whole process, from its start to the result; how many texts it removes; recall, the
part of the planted pairs at or above .8 of which one text is removed; precision, the part of removed texts whose named
partner is truly at or above .8, by Python sets over a sample of 5,000. Tools that read files themselves are timed from
the call of their function here, with what they start: the .15 s of Python's start and of this script's imports are not
in their time but in that of the others. A second table has the part removed of the pairs planted from .50 on, by bins
of .05: above .8 recall; below it texts lost, or removed for the sake of a third. `command` is `chimed dedup` from start
to end: reading, folding, and writing what stays. Peers are installed from PyPI, the command from this checkout, each
into an environment of its own below FOLDER; one that does not install or run is skipped with a message. All get the
same 5-grams of characters and bands of 16 x 8.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import jaccard

THRESHOLD = 0.8
BINS = [place / 20 for place in range(10, 20)]  # planted similarity: from each up to the next, the last to 1
Links = npt.NDArray[np.int64]


def chimed(texts: pa.StringArray) -> Links:
    """This project's kernels: 14 bands of 5, verified."""
    from chimed.dedup import band_keys, exact, exact_keys, find  # noqa: PLC0415

    group, order = np.zeros(len(texts), np.int32), np.arange(len(texts))
    copies = exact(exact_keys(texts), group, order)
    bands = band_keys(texts)
    bands[copies >= 0] = 0
    found = find(np.ascontiguousarray(bands.T), group, order, texts.take, threshold=THRESHOLD)
    return np.where(copies >= 0, copies, found.by)


def datasketch(texts: pa.StringArray) -> Links:
    """datasketch's MinHashLSH over its batched signatures, 16 bands of 8: the first match is the partner."""
    from datasketch import MinHash, MinHashLSH  # noqa: PLC0415

    index, links = MinHashLSH(num_perm=128, params=(16, 8)), np.full(len(texts), -1)
    shingles = ([text[i : i + 5].encode() for i in range(max(len(text) - 4, 1))] for text in texts.to_pylist())
    for row, minhash in enumerate(MinHash.generator(shingles, num_perm=128)):
        matches = index.query(minhash)
        if matches:
            links[row] = min(matches)
        else:
            index.insert(row, minhash, check_duplication=False)
    return links


def command(path: Path) -> Links:
    """`chimed dedup` as a user runs it."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([sys.executable, "-m", "chimed.cli", "dedup", str(path), "--out", out, "--json"], check=True)
        removed = pq.read_table(Path(out) / "removed.parquet")
    links = np.full(pq.read_metadata(path).num_rows, -1)
    links[removed["row"].to_numpy() - 1] = removed["by_row"].to_numpy() - 1
    return links


def rensa(texts: pa.StringArray) -> Links:
    """rensa's RMinHash over token lists and its LSH: the first match is the partner."""
    from rensa import RMinHash, RMinHashLSH  # noqa: PLC0415

    index, links = RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=16), np.full(len(texts), -1)
    for row, text in enumerate(texts.to_pylist()):
        minhash = RMinHash(num_perm=128, seed=42)
        minhash.update([text[i : i + 5] for i in range(max(len(text) - 4, 1))])
        matches = index.query(minhash)
        if matches:
            links[row] = min(matches)
        else:
            index.insert(row, minhash)
    return links


def gaoya(texts: pa.StringArray) -> Links:
    """gaoya's index over character 5-grams, all cores: the first match is the partner."""
    from gaoya.minhash import MinHashStringIndex  # noqa: PLC0415

    index = MinHashStringIndex(32, THRESHOLD, 16, 8, analyzer="char", ngram_range=(5, 5))
    rows = texts.to_pylist()
    index.par_bulk_insert_docs(list(range(len(rows))), rows)
    links = np.full(len(rows), -1)
    for row, matches in enumerate(index.par_bulk_query(rows)):
        first = min(matches, default=row)
        links[row] = first if first < row else -1
    return links


class Characters:
    """A tokenizer for datatrove: every character is a word."""

    def word_tokenize(self, text: str) -> list[str]:
        return list(text)


def datatrove(path: Path) -> Links:
    """datatrove's four steps over characters, two workers; it names no partner, only what it removes."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.pipeline.dedup import (  # noqa: PLC0415
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.writers import JsonlWriter  # noqa: PLC0415

    settings = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for half in (0, 1):
            with (folder / f"in/{half}.jsonl").open("w") as file:
                for row in range(half, len(texts), 2):
                    file.write(json.dumps({"text": texts[row], "id": str(row)}) + "\n")
        signatures, buckets, remove = (str(folder / step) for step in ("signatures", "buckets", "remove"))
        reader = JsonlReader(str(folder / "in"))
        removed = JsonlWriter(str(folder / "removed"), compression=None)
        signature = MinhashDedupSignature(signatures, config=settings)
        signature.word_tokenizer = Characters()  # its own for Chinese, jieba, takes ten times as long
        steps: list[tuple[int, list[object]]] = [
            (2, [reader, signature]),
            (16, [MinhashDedupBuckets(signatures, buckets, config=settings)]),
            (1, [MinhashDedupCluster(buckets, remove, config=settings)]),
            (2, [reader, MinhashDedupFilter(remove, exclusion_writer=removed)]),
        ]
        for number, (tasks, pipeline) in enumerate(steps):
            log = str(folder / f"log{number}")
            LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(tasks, 2), logging_dir=log).run()
        links = np.full(len(texts), -1)
        for part in (folder / "removed").glob("*.jsonl"):
            with part.open() as file:
                links[[int(json.loads(line)["id"]) for line in file]] = UNNAMED
    return links


def data_juicer(path: Path) -> Links:
    """data-juicer's document_minhash_deduplicator over characters, two processes; it names no partner."""
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.jsonl").open("w") as file:
            for row, text in enumerate(texts):
                file.write(json.dumps({"text": text, "row": row}) + "\n")
        settings = {"tokenization": "character", "window_size": 5, "lowercase": False, "jaccard_threshold": THRESHOLD}
        settings |= {"num_permutations": 128, "num_bands": 16, "num_rows_per_band": 8}
        recipe = {
            "project_name": "near-duplicates",
            "dataset_path": str(folder / "in.jsonl"),
            "export_path": str(folder / "kept.jsonl"),
            "np": 2,
            "process": [{"document_minhash_deduplicator": settings}],
        }
        (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
        command = [str(Path(sys.executable).with_name("dj-process")), "--config", str(folder / "recipe.yaml")]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        links = np.full(len(texts), UNNAMED)
        with (folder / "kept.jsonl").open() as file:
            links[[int(json.loads(line)["row"]) for line in file]] = -1
    return links


def text_dedup(path: Path) -> Links:
    """text-dedup's MinHash over characters spaced by hand, since it splits at spaces alone; it names no partner."""
    from datasets import load_from_disk  # noqa: PLC0415

    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pa.table({"text": [" ".join(text) for text in texts], "row": range(len(texts))}), folder / "in")
        settings = {"path": "parquet", "data_files": folder / "in", "split": "train", "cache_dir": folder / "cache"}
        settings |= {"output": folder / "kept", "column": "text", "num_proc": 2, "ngram": 5, "min_length": 1}
        settings |= {"num_perm": 128, "b": 16, "r": 8, "threshold": THRESHOLD, "hash_func": "xxh3", "hash_bits": 32}
        options = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
        command = [sys.executable, "-m", "text_dedup.minhash", *options]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        links = np.full(len(texts), UNNAMED)
        links[load_from_disk(str(folder / "kept"))["row"]] = -1
    return links


UNNAMED = np.iinfo(np.int64).max  # removed, but the tool does not say for whose sake
TOOLS: dict[str, Callable[[pa.StringArray], Links]] = {
    "chimed": chimed,
    "datasketch": datasketch,
    "rensa": rensa,
    "gaoya": gaoya,
}
WHOLE: dict[str, Callable[[Path], Links]] = {
    "command": command,
    "datatrove": datatrove,
    "data-juicer": data_juicer,
    "text-dedup": text_dedup,
}  # these read files themselves
PEERS = {"rensa": "rensa==0.5.0", "gaoya": "gaoya==0.2.2", "datatrove": "datatrove[io,processing]==0.10.1 spacy"}
PEERS["data-juicer"] = "py-data-juicer==1.6.1 aiohttp"
PEERS["text-dedup"] = "text-dedup==0.4.0"
PEERS["command"] = (
    f"-e {Path(__file__).parents[1]}"  # alone too: pyarrow and numba load pandas and scipy where they are
)
INSTALL_SECONDS = 300


def python_of(tool: str, peers: Path | None) -> str:
    """The interpreter that has the tool, installed if it is not there yet. Raises OSError or a subprocess error."""
    if tool not in PEERS:
        return sys.executable
    if peers is None and tool == "command":
        return sys.executable
    if peers is None:
        raise OSError("needs --peers FOLDER")
    folder = peers / tool
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        wanted = [*PEERS[tool].split(), "pyarrow", "numpy"]
        pip = [folder / "bin/python", "-m", "pip", "install", "-q", "--prefer-binary", *wanted]
        subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
        (folder / "complete").touch()
    return str(folder / "bin/python")


def run(tool: str, path: Path, out: Path, began: float) -> None:
    """One tool in this process: its links and what they cost, into `out`; began: when the process was started."""
    if tool in WHOLE:  # has processes of its own: what this one took until here is not part of it
        began, before = time.perf_counter(), cpu()
        links = WHOLE[tool](path)
    else:
        before = 0.0
        links = TOOLS[tool](pq.read_table(path, columns=["text"])["text"].combine_chunks())
    [own] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    below = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # not so one's own: it begins with the parent's
    cost = {
        "wall": time.perf_counter() - began,
        "cpu": cpu() - before,
        "peak": max(int(own.split()[1]), below) / 1024,
    }
    np.save(out.with_suffix(".npy"), links)
    out.write_text(json.dumps(cost))


def cpu() -> float:
    """CPU-seconds of this process and of those it has waited for."""
    own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime


def score(table: pa.Table, links: Links) -> dict[str, float]:
    """What the links are worth, against the planted pairs and by exact similarity."""
    planted = table["jaccard"].to_numpy()
    removed = np.flatnonzero(links >= 0)
    named = removed[links[removed] != UNNAMED]
    texts = table["text"].combine_chunks()
    sample = random.Random(0).sample(named.tolist(), min(5_000, len(named)))
    right = [jaccard(texts[row].as_py(), texts[int(links[row])].as_py()) >= THRESHOLD for row in sample]
    return {
        "removed": len(removed),
        "recall": parted(table, links, planted >= THRESHOLD),
        "precision": float(np.mean(right)) if right else float("nan"),
    }


def parted(table: pa.Table, links: Links, wanted: npt.NDArray[np.bool_]) -> float:
    """Of how many of the wanted planted pairs one text is removed."""
    of = table["of"].to_numpy()
    pairs = np.flatnonzero((of >= 0) & wanted)
    return float(((links[pairs] >= 0) | (links[of[pairs]] >= 0)).mean()) if len(pairs) else float("nan")


def by_bin(table: pa.Table, links: Links) -> list[float]:
    """The part removed of the pairs planted in each of BINS."""
    planted = table["jaccard"].to_numpy()
    stops = [*BINS[1:], 2.0]
    return [
        parted(table, links, (planted >= start) & (planted < stop)) for start, stop in zip(BINS, stops, strict=True)
    ]


def measured(tool: str, texts: Path, peers: Path | None) -> tuple[dict[str, float], Links] | None:
    """What a tool costs in a process of its own, and its links; None where it does not install or run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / f"{tool}.json"
        try:
            python = python_of(tool, peers)
            if tool == "command":  # the first run of a checkout compiles its kernels
                pq.write_table(pq.read_table(texts).slice(0, 100), folder / "few.parquet")
                warm = [python, "-m", "chimed.cli", "dedup", folder / "few.parquet", "--out", folder / "few"]
                subprocess.run(warm, check=True, stdout=subprocess.DEVNULL)
            arguments = [python, __file__, str(texts), "--tools", tool, "--out", str(out)]
            arguments += ["--began", str(time.perf_counter())]  # one clock for all processes of a machine
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{tool}: skipped: {error}", file=sys.stderr)
            return None
        return json.loads(out.read_text()), np.load(out.with_suffix(".npy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--tools", nargs="+", choices=[*TOOLS, *WHOLE], default=[*TOOLS, *WHOLE])
    parser.add_argument("--peers", type=Path, help="folder for the peers' environments; default: skip the peers")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out:
        run(args.tools[0], args.texts, args.out, args.began)
        return
    table = pq.read_table(args.texts)
    print(f"{len(table):,} texts\n")
    print("| tool | wall s | CPU-s | texts a CPU-s | peak MB | texts removed | recall | precision | CPU-s ÷ chimed |")
    print("|---|---|---|---|---|---|---|---|---|")
    base = float("nan")
    bins = [
        f"| removed of pairs from | {' | '.join(f'{start:.2f}' for start in BINS)} |",
        "|---|" + "---:|" * len(BINS),
    ]
    found: dict[str, list[tuple[dict[str, float], Links]]] = {tool: [] for tool in args.tools}
    for _ in range(args.rounds):
        for tool in args.tools:
            if (once := measured(tool, args.texts, args.peers)) is not None:
                found[tool].append(once)
                print(f"{tool}: {once[0]['wall']:.1f} s", file=sys.stderr)
    for tool in (tool for tool in args.tools if found[tool]):
        cost, links = sorted(found[tool], key=lambda once: once[0]["wall"])[len(found[tool]) // 2]
        worth = score(table, links)
        bins.append(f"| {tool} | {' | '.join(f'{part:.3f}' for part in by_bin(table, links))} |")
        base = cost["cpu"] if tool == "chimed" else base
        print(
            f"| {tool} | {cost['wall']:.1f} | {cost['cpu']:.1f} | {len(table) / cost['cpu']:,.0f} "
            f"| {cost['peak']:,.0f} | {worth['removed']:,} | {worth['recall']:.4f} | {worth['precision']:.4f} "
            f"| {cost['cpu'] / base:.1f} |",
            flush=True,
        )
    print("\n" + "\n".join(bins))


if __name__ == "__main__":
    main()
