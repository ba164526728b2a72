"""Tokens a second, peak memory and, on a GPU whose peak is known, MFU of a training step: qilin beside the others.

    python benchmarks/train.py                         # a tiny model on the CPU
    python benchmarks/train.py --device cuda --model 0.5b --batch 8 --length 2048
    python benchmarks/train.py --device cuda --model 7b --batch 4 --length 2048

Four ways to train all weights of the same random Llama on the same random documents, each in a process of its own:
a bare PyTorch loop over packed rows; qilin's stage with everything that watches a run; TRL alone on the same packed
rows (padding_free); TRL as it comes, which pads documents, recomputes activations and computes in bfloat16. Tokens are
those of documents, padding left out. The first steps do not count. On the CPU seconds are those of one core, so that
another process does not change them, and memory is what training adds to the imports. On a GPU all weights are
bfloat16: it measures speed, not learning.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from qilin import processor, stages, train
from qilin.flops import find_gpu, flops_per_token, mfu, size_of
from qilin.recipe import Recipe
from qilin.stages import Rows
from qilin.watch import Signals, callback

WAYS = ("bare PyTorch loop", "qilin", "TRL, the same rows", "TRL, its defaults")
WARM = 3
# name -> vocabulary, width, inner width, layers, heads, key-value heads: the last two are Qwen2.5-0.5B and Llama-2-7B
MODELS = {
    "tiny": (1536, 128, 384, 4, 4, 2),
    "0.5b": (151936, 896, 4864, 24, 14, 2),
    "7b": (32000, 4096, 11008, 32, 32, 32),
}


def documents(tokens: int, length: int, vocabulary: int) -> Iterator[list[int]]:
    """Random documents, most of them short, up to `tokens` tokens together."""
    rng = np.random.default_rng(0)
    while tokens > 0:
        size = int(min(np.clip(rng.lognormal(5, 0.8), 16, length), tokens))
        yield rng.integers(3, vocabulary, size).tolist()
        tokens -= size


def packed(given: list[list[int]], length: int) -> list[dict[str, list[int]]]:
    """Documents put into rows in order; the next row takes what a row has no room for."""
    rows: list[dict[str, list[int]]] = [{"input_ids": [], "labels": [], "seq_lengths": []}]
    for document in given:
        rest = document
        while rest:
            room = length - len(rows[-1]["input_ids"])
            piece, rest = rest[:room], rest[room:]
            if piece:
                rows[-1]["input_ids"] += piece
                rows[-1]["labels"] += piece
                rows[-1]["seq_lengths"].append(len(piece))
            if rest:
                rows.append({"input_ids": [], "labels": [], "seq_lengths": []})
    return rows


def model_of(options: argparse.Namespace) -> Any:
    vocabulary, width, inner, layers, heads, key_value = MODELS[options.model]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value,
        max_position_embeddings=max(2048, options.length),
        tie_word_embeddings=options.model != "7b",
        attn_implementation=options.attention,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        return LlamaForCausalLM._from_config(
            config, dtype=torch.bfloat16 if options.device == "cuda" else torch.float32
        )


class Clock:
    """Times each optimizer step as a callback."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() if torch.cuda.is_available() else time.process_time())

    on_train_begin = on_step_end


def bare(options: argparse.Namespace, rows: Any, model: Any, _: Any) -> list[float]:
    optimizer, clock, collate = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True), Clock(), Rows(0)
    clock.on_train_begin()
    for step in range(options.steps):
        batch = collate(rows[step * options.batch : (step + 1) * options.batch])
        batch = {key: value.to(options.device) for key, value in batch.items()}
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.on_step_end()
    return clock.times


def settings(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": options.batch,
        "max_steps": options.steps,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "activation_checkpointing": False,
        "bf16": options.device == "cuda",
        "use_cpu": options.device == "cpu",
    }


def qilin(options: argparse.Namespace, rows: Any, model: Any, tokenizer: Any) -> list[float]:
    prepared = SimpleNamespace(load=lambda _: Dataset.from_list(rows), splits={"train": len(rows)})
    with tempfile.TemporaryDirectory() as folder:
        model_said = {"path": "random", "attention": options.attention}
        data = {"path": "random", "length": options.length}
        recipe = Recipe(stage="cpt", model=model_said, data=data, trainer=settings(options, folder))  # type: ignore[arg-type]
        processor.install()
        trainer = stages.packed(recipe, stages.settings(recipe), model, tokenizer, prepared)  # type: ignore[arg-type]
        clock = Clock()
        with Signals() as signals:
            train._watch(recipe, trainer, signals, lambda _: None)
            trainer.add_callback(callback(clock))
            trainer.train()
    return clock.times


def trl(options: argparse.Namespace, rows: Any, model: Any, tokenizer: Any) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        given = settings(options, folder)
        if options.way == WAYS[2]:
            given |= {"padding_free": True, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        else:
            given = {key: given[key] for key in given if key not in ("activation_checkpointing", "bf16")}
        args, clock = SFTConfig(**given, disable_tqdm=True), Clock()
        data = Dataset.from_list(rows)
        trainer = SFTTrainer(model, args=args, train_dataset=data, processing_class=tokenizer)
        trainer.add_callback(callback(clock))
        trainer.train()
    return clock.times


def tokenizer_of() -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")),
        eos_token="<eos>",
        pad_token="<pad>",
    )


def one(options: argparse.Namespace) -> dict[str, float]:
    """Train in one way, and measure."""
    vocabulary = MODELS[options.model][0]
    given = list(documents(options.steps * options.batch * options.length, options.length, vocabulary))
    rows: list[dict[str, list[int]]] = packed(given, options.length)[: options.steps * options.batch]
    if options.way == WAYS[3]:
        # As many documents a step as the packed rows of a step hold on average.
        options.batch = max(1, round(len(given) / options.steps))
        rows = [{"input_ids": document, "labels": document} for document in given]
    tokens = sum(len(row["input_ids"]) for row in rows) / options.steps
    torch.set_num_threads(1 if options.device == "cpu" else torch.get_num_threads())
    before = psutil.Process().memory_info().rss
    model = model_of(options)
    ways: dict[str, Callable[..., list[float]]] = dict(zip(WAYS, (bare, qilin, trl, trl), strict=True))
    times = ways[options.way](options, rows, model, tokenizer_of())
    steps = [after - before for before, after in zip(times[WARM:], times[WARM + 1 :], strict=False)]
    on_gpu = options.device == "cuda"
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    peak = torch.cuda.max_memory_allocated() if on_gpu else resident
    found = {"seconds": statistics.mean(steps), "speed": tokens / statistics.mean(steps), "memory": peak / 2**20}
    if on_gpu:
        gpu = find_gpu(torch.cuda.get_device_name())
        cost = flops_per_token(size_of(model), options.length)
        found["mfu"] = mfu(found["speed"], cost, gpu.peak) if gpu else 0.0
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--model", choices=MODELS, default="tiny")
    arguments.add_argument("--batch", type=int, default=4, help="packed rows a step")
    arguments.add_argument("--length", type=int, default=512)
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--attention", default="sdpa")
    arguments.add_argument("--way", choices=WAYS, help="only this one, as JSON")
    options = arguments.parse_args()
    if options.way:
        warnings.filterwarnings("ignore")
        print(json.dumps(one(options)))
        return
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    print(f"{options.model} on {options.device}: {options.batch} rows x {options.length} tokens, {options.attention}\n")
    print("| way | ms a step | tokens/s | of bare | peak MB | MFU |\n|---|---|---|---|---|---|")
    first = 0.0
    for way in WAYS:
        command = [sys.executable, str(Path(__file__)), *sys.argv[1:], "--way", way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"| {way} | {done.stderr.strip().splitlines()[-1]} | | | | |")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["speed"]
        share = f"{found['mfu']:.1%}" if found.get("mfu") else ""
        speed = f"{1000 * found['seconds']:,.0f} | {found['speed']:,.0f} | {found['speed'] / first:.2f}"
        print(f"| {way} | {speed} | {found['memory']:,.0f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
