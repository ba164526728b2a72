"""Preparation side by side: tokenised, masked and packed rows made from one input with one tokenizer.

    chimed build --stage all --out out
    python benchmarks/prepare.py out --model MODEL --workers 2 --peers FOLDER
    python benchmarks/prepare.py out --model MODEL --stages cpt --tools qilin --grow 1000

Each tool runs in a process of its own on the first `--rows` rows of a stage's training split, or, with `--grow`, on
those rows repeated until there are so many megabytes of text. Printed for each: wall and CPU seconds from the start of
reading to the last row on disk, imports left out; tokens a second of either; fill, tokens by the room of the rows; peak
memory, the sum over the tool's processes, pages of mapped files included. TRL prepares in the constructor of
SFTTrainer, which is given a model of a few weights; LLaMA-Factory in `get_dataset`, from PyPI in an environment of its
own below FOLDER. A tool that does not install or run is left out with a message.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TEMPLATE = "qwen2.5"


def seconds() -> tuple[float, float]:
    """Wall and CPU seconds so far, of this process and of its children that ended."""
    used = os.times()
    return time.perf_counter(), used.user + used.system + used.children_user + used.children_system


def qilin(folder: Path, stage: str, length: int, workers: int, model: str) -> Iterator[Any]:
    """This project: yields when it is loaded, then the number of rows and tokens."""
    from transformers import AutoTokenizer  # noqa: PLC0415

    from qilin.prepare import prepare  # noqa: PLC0415
    from qilin.recipe import Recipe  # noqa: PLC0415
    from qilin.template import read  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = read(TEMPLATE)
    yield None
    with tempfile.TemporaryDirectory(dir=folder) as out:
        data = {"path": folder / stage, "length": length, "prepared": out}
        recipe = Recipe(stage=stage, model={"path": model}, data=data, trainer={"output_dir": "none"})
        train = prepare(recipe, tokenizer, workers=workers).splits["train"]
    yield train.rows, train.tokens


def trl(folder: Path, stage: str, length: int, workers: int, model: str) -> Iterator[Any]:
    """TRL's own preparation, which its trainer does when it is made."""
    from datasets import Dataset  # noqa: PLC0415
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=tokenizer.eos_token_id,
    )
    tiny = LlamaForCausalLM(config)
    column = {"cpt": "text", "sft": "messages"}[stage]
    yield None
    with tempfile.TemporaryDirectory(dir=folder) as out:
        files = sorted(str(path) for path in (folder / stage).glob("train-*.parquet"))
        data = Dataset.from_parquet(files, columns=[column], cache_dir=out)
        arguments = SFTConfig(
            output_dir=f"{out}/run",
            max_length=length,
            packing=True,
            packing_strategy="bfd_split" if stage == "cpt" else "bfd",
            assistant_only_loss=stage == "sft",
            dataset_num_proc=workers if workers > 1 else None,
            use_cpu=True,
            bf16=False,
        )
        made = SFTTrainer(tiny, arguments, train_dataset=data, processing_class=tokenizer).train_dataset
        tokens = pc.sum(pc.list_value_length(made.data["input_ids"])).as_py()
        yield len(made), tokens


def llama_factory(folder: Path, stage: str, length: int, workers: int, model: str) -> Iterator[Any]:
    """LLaMA-Factory's `get_dataset` with packing; its sft packing lets no more than whole conversations in a row."""
    # It imports torchaudio, whose builds on PyPI need CUDA; texts do not.
    sys.modules["torchaudio"] = ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer  # noqa: PLC0415
    from llamafactory.hparams import get_train_args  # noqa: PLC0415
    from llamafactory.model import load_tokenizer  # noqa: PLC0415

    yield None
    kind = "pt" if stage == "cpt" else "sft"
    with tempfile.TemporaryDirectory(dir=folder) as out:
        shards = Path(out) / "shards"  # a folder with nothing else in it
        shards.mkdir()
        for path in (folder / stage).glob("*.parquet"):
            (shards / path.name).symlink_to(path)
        files: dict[str, Any] = {"file_name": "shards", "columns": {"prompt": "text"}}
        if stage == "sft":
            tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
            files |= {"formatting": "sharegpt", "columns": {"messages": "messages"}}
            files["tags"] = {**tags, "system_tag": "system"}
        (Path(out) / "dataset_info.json").write_text(json.dumps({"own": files}))
        parsed = get_train_args(
            {
                "stage": kind,
                "do_train": True,
                "model_name_or_path": model,
                "dataset": "own",
                "dataset_dir": out,
                "template": "qwen",
                "cutoff_len": length,
                "packing": True,
                "neat_packing": stage == "sft",
                "preprocessing_num_workers": workers if workers > 1 else None,
                "overwrite_cache": True,
                "output_dir": f"{out}/run",
                "report_to": "none",
            }
        )
        loaded = load_tokenizer(parsed[0])
        template = get_template_and_fix_tokenizer(loaded["tokenizer"], parsed[1])
        made = get_dataset(template, *parsed[:3], stage=kind, **loaded)["train_dataset"]
        padding = loaded["tokenizer"].pad_token_id
        tokens = sum(len(row) - row.count(padding) for row in made["input_ids"])
        yield len(made), tokens


TOOLS = {"qilin": qilin, "TRL": trl, "LLaMA-Factory": llama_factory}


def one(tool: str, folder: Path, stage: str, length: int, workers: int, model: str) -> None:
    """Run a tool in this process and print what it took as a line of JSON."""
    steps = TOOLS[tool](folder, stage, length, workers, model)
    next(steps)
    before = seconds()
    rows, tokens = next(steps)
    wall, cpu = (after - start for after, start in zip(seconds(), before, strict=True))
    print(json.dumps({"wall": wall, "cpu": cpu, "rows": rows, "tokens": tokens, "fill": tokens / (rows * length)}))


def measured(command: list[str]) -> dict[str, float]:
    """What a run printed, and the peak memory of its processes in MB."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_VERSION_CHECK": "1"}
    peak = 0
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        watched = psutil.Process(process.pid)
        printed: list[str] = []
        assert process.stdout
        reader = threading.Thread(target=lambda: printed.extend(process.stdout or []))
        reader.start()
        while process.poll() is None:
            peak = max(peak, held(watched))
            time.sleep(0.05)
        reader.join()
        if process.returncode:
            log.seek(0)
            raise RuntimeError(log.read().strip().splitlines()[-1])
    return {**json.loads(printed[-1]), "peak": peak / 1e6}


def held(process: psutil.Process) -> int:
    """The memory that a process and its children hold."""
    total = 0
    for own in (process, *children(process)):
        try:
            total += own.memory_info().rss
        except psutil.Error:
            continue
    return total


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


def python_of(tool: str, peers: Path | None) -> str:
    """The interpreter that has the tool."""
    if tool != "LLaMA-Factory":
        return sys.executable
    if not peers:
        raise RuntimeError("no --peers folder")
    folder = peers / "llama-factory"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        # Its pins are older than the training stack here: it brings its own, but for torch, which it finds here.
        venv.create(folder, with_pip=True, clear=True)
        packages = ["llamafactory", "torch==2.13.0", "psutil"]
        pip = [python, "-m", "pip", "--quiet"]
        subprocess.run([*pip, "install", *packages], check=True, timeout=600)
        subprocess.run([*pip, "uninstall", "--yes", "torchaudio", "torchvision"], check=True)
        (folder / "done").touch()
    return str(python)


def cut(source: Path, stage: str, out: Path, rows: int | None, megabytes: int | None) -> None:
    """Write a stage folder of the first rows of another, repeated until it has so many megabytes of text."""
    table = pa.concat_tables(map(pq.read_table, sorted((source / stage).glob("train-*.parquet"))))[:rows]
    size = len(table["text"].combine_chunks().buffers()[2]) / 1e6 if megabytes else 1
    folder = out / stage
    folder.mkdir()
    file = folder / "train-00000-of-00001.parquet"
    total = 0
    with pq.ParquetWriter(file, table.schema) as writer:
        for _ in range(max(1, round((megabytes or 1) / size))):
            writer.write_table(table, row_group_size=16384)
            total += len(table)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest = {"stage": stage, "rows": {"train": total}, "files": {file.name: digest}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--model", required=True, help="folder of the model whose tokenizer is used")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--stages", nargs="+", choices=["cpt", "sft"], default=["cpt", "sft"])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--grow", type=int, help="megabytes of text to make of the rows of cpt")
    parser.add_argument("--rounds", type=int, default=1, help="the run of fewest CPU seconds counts")
    parser.add_argument("--peers", type=Path, help="folder for the peers' environments; default: skip the peers")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.run:
        one(args.tools[0], args.build, args.stages[0], args.length, args.workers[0], args.model)
        return
    print("| stage | tool | processes | tokens | wall s | CPU-s | tokens a CPU-s | fill | peak MB | CPU ÷ qilin |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for stage in args.stages:
        with tempfile.TemporaryDirectory() as name:
            cut(args.build, stage, Path(name), args.rows, args.grow)
            for workers in args.workers:
                print(*table(stage, workers, Path(name), args), sep="\n", flush=True)


def table(stage: str, workers: int, folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """A line for each tool; rounds are interleaved, so that a slow minute of the machine meets all tools."""
    best: dict[str, dict[str, float]] = {}
    for _ in range(args.rounds):
        for tool in args.tools:
            options = [f"--{name}={value}" for name, value in (("model", args.model), ("length", args.length))]
            options += ["--stages", stage, "--tools", tool, "--workers", str(workers), "--run"]
            try:
                found = measured([python_of(tool, args.peers), __file__, str(folder), *options])
            except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                print(f"{tool}: left out: {error}", file=sys.stderr)
                continue
            if tool not in best or found["cpu"] < best[tool]["cpu"]:
                best[tool] = found
    for tool, cost in best.items():
        ratio = cost["cpu"] / best["qilin"]["cpu"] if "qilin" in best else float("nan")
        yield (
            f"| {stage} | {tool} | {workers} | {cost['tokens']:,.0f} | {cost['wall']:.1f} | {cost['cpu']:.1f} "
            f"| {cost['tokens'] / cost['cpu']:,.0f} | {cost['fill']:.4f} | {cost['peak']:,.0f} | {ratio:.1f} |"
        )


if __name__ == "__main__":
    main()
