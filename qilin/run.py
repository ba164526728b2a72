"""The folder of a run: one process at a time, whole checkpoints to go on from, and `run.json` written last.

checkpoint-40/          what a killed run goes on from
half-checkpoint-60/     a checkpoint that was cut in half, put aside
begun.json              what the run trains on what, written before the first step
metrics.jsonl           one line a log: numbers, not strings
run.json                written last: a folder that has it is a finished run
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qilin.errors import RunError

BEGUN, DONE, METRICS = "begun.json", "run.json", "metrics.jsonl"

# What may change between two sessions of a run: it decides how often it looks or saves, never what it learns.
HARMLESS = frozenset(
    {
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "disable_tqdm",
        "log_level",
        "logging_steps",
        "output_dir",
        "per_device_eval_batch_size",
        "report_to",
        "run_name",
        "save_steps",
        "save_strategy",
        "save_total_limit",
    }
)
WEIGHTS = ("model*.safetensors", "adapter_model.safetensors", "pytorch_model_fsdp*", "global_step*")
OPTIMIZER = ("optimizer.*", "optimizer_*", "global_step*")
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "PytorchStreamWriter failed", "file write failed")
NO_MEMORY = ("OutOfMemoryError", "can't allocate memory")


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep every other process out of a run's folder until the block ends, or this process does, however it ends.

    Raises RunError at once when another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise RunError(
                f"{folder}: another process ({holder}) writes this run; wait for it, or give this one another "
                "trainer.output_dir"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file of this folder holds, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}); restore it or start in a new folder") from None
    return found


def weights_digest(folder: Path) -> str:
    """The sha256 over a model folder's weights: each file's name and bytes, in order of name."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> list[str]:
    """What two nested mappings differ in, one sentence a key; keys that change nothing that is learned do not count.

    >>> differences({"trainer": {"seed": 1, "save_steps": 5}}, {"trainer": {"seed": 2, "save_steps": 9}})
    ['trainer.seed was 1, is 2']
    """
    found = []
    for key in sorted({*old, *new} - HARMLESS):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            found += differences(was, now, f"{above}{key}.")
        elif was != now:
            found.append(f"{above}{key} was {_short(was)}, is {_short(now)}")
    return found


def _short(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 48 else f"{text[:12]}…"


def check_same(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any], what: str) -> None:
    """Raise RunError when a run's folder was begun, or finished, with something else than what is asked for now."""
    if changed := differences(old["identity"], new):
        raise RunError(
            f"{folder}: holds {what} of something else: {'; '.join(changed)}. Put the old values back, or give this "
            "run another trainer.output_dir"
        )


def last_checkpoint(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint. One that was cut in half is renamed to `half-checkpoint-…`, and that is said."""
    for checkpoint in reversed(_checkpoints(folder)):
        fault = flaw(checkpoint)
        if not fault:
            return checkpoint
        aside = checkpoint.with_name(f"half-{checkpoint.name}")
        if aside.exists():
            shutil.rmtree(aside)
        checkpoint.rename(aside)
        say(f"{checkpoint}: {fault}; put aside as {aside.name}, which may be deleted")
    return None


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def flaw(checkpoint: Path) -> str:
    """What keeps a run from going on from this checkpoint, or nothing.

    `trainer_state.json` is written last, so a kill leaves it out; files that were cut later (a copy that broke off, a
    full disk) are told by their own tables of contents. Weights are not read: it costs no time on a large model.
    """
    try:
        step = json.loads((checkpoint / "trainer_state.json").read_bytes())["global_step"]
    except (OSError, ValueError, KeyError):
        return "trainer_state.json is missing or cut, so the saving was not finished"
    if checkpoint.name != f"checkpoint-{step}":
        return f"trainer_state.json is of step {step}"
    for path in sorted(checkpoint.rglob("*")):
        if path.suffix == ".safetensors" and not _whole_safetensors(path):
            return f"{path.name} is cut"
        if path.suffix in {".pt", ".pth"} and not zipfile.is_zipfile(path):
            return f"{path.name} is cut"
        if path.name.endswith(".safetensors.index.json"):
            lost = {*json.loads(path.read_bytes())["weight_map"].values()} - {p.name for p in path.parent.iterdir()}
            if lost:
                return f"{min(lost)} is missing"
    if not _any(checkpoint, WEIGHTS):
        return "it holds no weights"
    return "" if _any(checkpoint, OPTIMIZER) else "it holds no optimizer state (trainer.save_only_model)"


def _any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(any(folder.glob(pattern)) for pattern in patterns)


def _whole_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(length))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + length + max(ends, default=0)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Turn a full disk or memory inside the block into one RunError; a half checkpoint that filled the disk goes."""
    try:
        yield
    except Exception as error:
        if _chain_has(error, NO_MEMORY):
            raise RunError(
                f"{folder}: out of memory; lower trainer.per_device_train_batch_size and raise "
                "trainer.gradient_accumulation_steps by as much, set trainer.activation_checkpointing: true, or "
                "shorten data.length; qilin plan estimates what a GPU must hold"
            ) from error
        if not _chain_has(error, FULL):
            raise
        for checkpoint in _checkpoints(folder):
            if flaw(checkpoint):
                shutil.rmtree(checkpoint, ignore_errors=True)
        kept = _checkpoints(folder)
        at = f"from {kept[-1].name}" if kept else "from the start"
        raise RunError(
            f"{folder}: the disk is full ({shutil.disk_usage(folder).free / 1e6:.0f} MB free); make room or set "
            f"trainer.save_total_limit, then the same command goes on {at}"
        ) from error


def _chain_has(error: BaseException | None, words: tuple[str, ...]) -> bool:
    """Whether an error, or one that it came from, says one of these; the libraries wrap the system's own."""
    while error is not None:
        if any(word in f"{type(error).__name__}: {error}" for word in words):
            return True
        error = error.__cause__ or error.__context__
    return False
