"""An exam by likelihood, in three ways: as qilin reads it, one candidate at a time, and by lm-eval's own HFLM.

    chimed build --stage eval --raw RAW --out out
    python benchmarks/evaluate.py out/eval --model models/qwen-0.5b --rows 6811 --methods letters --ways qilin
    python benchmarks/evaluate.py out/eval --model models/qwen-0.5b --rows 200

Each way scores the same candidates of the same items with the same ids, in a process of its own. `qilin` reads prompts
of like length in batches and a prompt once for all its candidates. `one at a time` reads prompt and candidate as one
sequence in a pass of its own, as a plain loop does. HFLM batches by length and shares a prompt where all candidates are
single tokens. Seconds are those of scoring: loading and reading the prompts are left out. Where two ways give different
letters is counted: in 16 bits near ties fall differently.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WAYS = ("qilin", "one at a time", "lm-eval HFLM")
Pair = tuple[tuple[int, ...], tuple[int, ...]]


def one_at_a_time(reader: Any, pairs: Sequence[Pair]) -> list[float]:
    """A pass over prompt and candidate for each candidate."""
    import torch  # noqa: PLC0415

    found = []
    with torch.inference_mode():
        for prompt, reply in pairs:
            logits = reader.model(torch.tensor([[*prompt, *reply]])).logits[0].float().log_softmax(-1)
            found.append(sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(reply)))
    return found


def shared(reader: Any, pairs: Sequence[Pair]) -> list[float]:
    """The way of `qilin eval`."""
    return [score for score, _ in reader.likelihoods(pairs)]


def hflm(reader: Any, pairs: Sequence[Pair]) -> list[float]:
    """lm-eval's own batching."""
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    lm = HFLM(pretrained=reader.model, tokenizer=reader.tokenizer, batch_size=reader.batch_size)
    requests = [((str(at), ""), list(prompt), list(reply)) for at, (prompt, reply) in enumerate(pairs)]
    return [score for score, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)]


def score(options: argparse.Namespace) -> dict[str, Any]:
    """Score in one way: seconds, and the letters of each item."""
    import torch  # noqa: PLC0415

    from qilin import models  # noqa: PLC0415
    from qilin.evaluate import exam, prompt  # noqa: PLC0415
    from qilin.evaluate.local import Reader  # noqa: PLC0415
    from qilin.evaluate.questions import candidates  # noqa: PLC0415
    from qilin.recipe import Model  # noqa: PLC0415

    said = Model(path=options.model, dtype=options.dtype)
    reader = Reader(models.load_model(said).eval(), models.load_tokenizer(said, "cpt"), options.batch)
    items = exam.read_items(options.data, options.sets)
    items = random.Random(0).sample(items, min(options.rows, len(items)))
    names = [candidates(item, options.method) for item in items]
    end = reader.end if options.method == "sets" else ""
    pairs = [
        (reader.prompt(prompt.dump(prompt.messages(item))), reader.reply(candidate + end))
        for item, own in zip(items, names, strict=True)
        for candidate in own
    ]
    ways: dict[str, Callable[[Any, Sequence[Pair]], list[float]]]
    ways = dict(zip(WAYS, (shared, one_at_a_time, hflm), strict=True))
    shared(reader, pairs[:2])  # libraries set themselves up in the first pass
    wall, cpu = time.perf_counter(), time.process_time()
    scores = iter(ways[options.way](reader, pairs))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    letters = [max(own, key=dict(zip(own, scores, strict=False)).__getitem__) for own in names]
    right = sum(found == item.answer for found, item in zip(letters, items, strict=True))
    return {"wall": wall, "cpu": cpu, "letters": letters, "right": right, "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="eval stage of a build")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sets", nargs="+", default=["cmexam/test", "cmexam/validation"])
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", nargs="+", choices=("letters", "sets"), default=["letters", "sets"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # this one in this process, as JSON
    options = parser.parse_args()
    if options.way:
        warnings.filterwarnings("ignore")
        options.method = options.methods[0]
        print(json.dumps(score(options)))
        return
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    print("| method | way | items | wall s | CPU-s | items a CPU-s | CPU ÷ qilin | other letters than qilin | right |")
    print("|---|---|---|---|---|---|---|---|---|")
    for method in options.methods:
        first: dict[str, Any] = {}
        for way in options.ways:
            command = [sys.executable, __file__, *sys.argv[1:], "--methods", method, "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                print(f"| {method} | {way} | {done.stderr.strip().splitlines()[-1]} | | | | | | |")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found
            count = len(found["letters"])
            other = sum(one != two for one, two in zip(first["letters"], found["letters"], strict=True))
            ratio = found["cpu"] / first["cpu"]
            speed = f"{found['wall']:.1f} | {found['cpu']:.1f} | {count / found['cpu']:.2f} | {ratio:.1f}"
            print(f"| {method} | {way} | {count} | {speed} | {other} | {found['right']} |", flush=True)


if __name__ == "__main__":
    main()
