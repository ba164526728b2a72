"""A whole build side by side with data-juicer and datatrove: the same file, as many of the same steps as each tool has.

    python benchmarks/whole.py pairs.jsonl --peers FOLDER

The file holds `question` and `answer` in JSON lines (`benchmarks/raw_corpus.py` makes them in OUT/cmd). Every tool
reads it with two processes and writes one text a pair:

    step                                    chimed            data-juicer                          datatrove
    Unicode NFKC, blanks                    yes               fix_unicode, whitespace_normalization  FTFYFormatter
    traditional to simplified               yes               chinese_convert                      –
    personal data                           seven kinds       e-mail, links, IP                    e-mail, IP
    empty, short, symbols, repeated text    yes               three filters                        length alone
    near-duplicates at .8                   verified          document_minhash, 16 x 8             MinHash, 16 x 8
    leaks, ledger, card, shuffled Parquet   yes               –                                    –

Each runs in a process of its own, peers in environments of their own below FOLDER; one that does not install or run is
skipped with a message. Printed: wall and CPU-seconds from the start of the process to its end, with all processes below
it, the largest resident set of one of them, and how many texts are kept.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from near_duplicates import THRESHOLD, Characters, python_of

SHORTEST = 8


def chimed(path: Path, folder: Path) -> int:
    """`chimed build` with a recipe for the file."""
    raw = folder / "raw" / "pairs"
    raw.mkdir(parents=True)
    shutil.copyfile(path, raw / "pairs.jsonl")
    columns = {"question": "question", "answer": "answer"}
    source = {"name": "pairs", "shape": "dialogue", "files": {"*.jsonl": "train"}, "columns": columns}
    recipe = {"validation": 0, "sources": [{**source, "stages": ["cpt"], "max_rejects": 1}]}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    paths = ["--recipe", str(folder / "recipe.yaml"), "--raw", str(folder / "raw"), "--out", str(folder / "out")]
    command = [sys.executable, "-m", "chimed.cli", "build", "--stage", "cpt", *paths, "--workers", "2", "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    kept: int = json.loads((folder / "out/cpt/manifest.json").read_text())["rows"]["train"]
    return kept


def joined(row: dict[str, str]) -> str:
    """The text of a pair."""
    return f"{row['question']}\n{row['answer']}"


def data_juicer(path: Path, folder: Path) -> int:
    """data-juicer by a recipe, two processes."""
    with path.open() as rows, (folder / "in.jsonl").open("w") as file:
        for line in rows:
            file.write(json.dumps({"text": joined(json.loads(line))}) + "\n")
    minhash = {"tokenization": "character", "window_size": 5, "lowercase": False, "jaccard_threshold": THRESHOLD}
    minhash |= {"num_permutations": 128, "num_bands": 16, "num_rows_per_band": 8}
    process: list[dict[str, dict[str, object]]] = [
        {"fix_unicode_mapper": {"normalization": "NFKC"}},
        {"whitespace_normalization_mapper": {}},
        {"chinese_convert_mapper": {"mode": "t2s"}},
        {"clean_email_mapper": {}},
        {"clean_links_mapper": {}},
        {"clean_ip_mapper": {}},
        {"text_length_filter": {"min_len": SHORTEST}},
        {"special_characters_filter": {"max_ratio": 0.5}},
        {"character_repetition_filter": {"rep_len": 10, "max_ratio": 0.8}},
        {"document_minhash_deduplicator": minhash},
    ]
    recipe = {"project_name": "whole", "dataset_path": str(folder / "in.jsonl"), "np": 2, "process": process}
    (folder / "recipe.yaml").write_text(json.dumps({**recipe, "export_path": str(folder / "kept.jsonl")}))
    command = [str(Path(sys.executable).with_name("dj-process")), "--config", str(folder / "recipe.yaml")]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with (folder / "kept.jsonl").open() as file:
        return sum(1 for _ in file)


def datatrove(path: Path, folder: Path) -> int:
    """datatrove's formatters, a filter and its four steps of MinHash over characters, two workers."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.pipeline.dedup import (  # noqa: PLC0415
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.filters import LambdaFilter  # noqa: PLC0415
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.writers import JsonlWriter  # noqa: PLC0415

    (folder / "in").mkdir()
    halves = [(folder / f"in/{half}.jsonl").open("w") for half in (0, 1)]
    with path.open() as rows:
        for number, line in enumerate(rows):
            halves[number % 2].write(json.dumps({"text": joined(json.loads(line)), "id": str(number)}) + "\n")
    for file in halves:
        file.close()
    settings = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
    clean, signatures, buckets, remove, kept = (
        str(folder / step) for step in ("clean", "signatures", "buckets", "remove", "kept")
    )
    signature = MinhashDedupSignature(signatures, config=settings)
    signature.word_tokenizer = Characters()
    long_enough = LambdaFilter(lambda document: len(document.text) >= SHORTEST)
    cleaning = [JsonlReader(str(folder / "in")), FTFYFormatter(normalization="NFKC"), PIIFormatter(), long_enough]
    reader = JsonlReader(clean)
    steps: list[tuple[int, list[object]]] = [
        (2, [*cleaning, JsonlWriter(clean, compression=None), signature]),
        (16, [MinhashDedupBuckets(signatures, buckets, config=settings)]),
        (1, [MinhashDedupCluster(buckets, remove, config=settings)]),
        (2, [reader, MinhashDedupFilter(remove), JsonlWriter(kept, compression=None)]),
    ]
    for number, (tasks, pipeline) in enumerate(steps):
        log = str(folder / f"log{number}")
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(tasks, 2), logging_dir=log).run()
    return sum(1 for part in Path(kept).glob("*.jsonl") for _ in part.open())


TOOLS: dict[str, Callable[[Path, Path], int]] = {"command": chimed, "data-juicer": data_juicer, "datatrove": datatrove}


def main() -> None:
    """Run every tool and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--peers", type=Path, help="folder for the peers' environments; default: skip the peers")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.out:  # in a process of its own
        with tempfile.TemporaryDirectory(dir=asked.out.parent) as folder:
            asked.out.write_text(str(TOOLS[asked.tools[0]](asked.pairs.resolve(), Path(folder))))
        return
    from build import watched  # noqa: PLC0415 - peers' environments lack what it needs

    with asked.pairs.open("rb") as file:
        count = sum(1 for _ in file)
    print(f"{count:,} pairs, {asked.pairs.stat().st_size / 1e6:.1f} MB\n")
    print("| tool | wall s | CPU-s | peak MB | kept | wall, chimed = 1 | CPU, chimed = 1 |\n|---|" + "---:|" * 6)
    first: tuple[float, float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        for tool in asked.tools:
            out, said = Path(folder) / tool, Path(folder) / f"{tool}.log"
            try:
                command = [python_of(tool, asked.peers), __file__, str(asked.pairs), "--tools", tool, "--out", str(out)]
                with said.open("wb") as log:
                    found = watched(command, log)
            except (OSError, subprocess.SubprocessError, SystemExit) as error:
                told = said.read_text(errors="replace")[-500:] if said.exists() else ""
                print(f"{tool}: skipped: {error} {told}", file=sys.stderr)
                continue
            cost = found.wall, sum(found.cpu.values())
            first = first or cost
            ratios = " | ".join(f"{own / base:.1f}" for own, base in zip(cost, first, strict=True))
            peak, name = max(found.peak.values()) / 1e6, "chimed" if tool == "command" else tool
            print(f"| {name} | {cost[0]:.1f} | {cost[1]:.1f} | {peak:,.0f} | {int(out.read_text()):,} | {ratios} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
