"""The rows of a stage as documents of token ids, encoded in parallel, in order, whatever the number of workers.

This process reads the Parquet files and hands out small batches of rows; workers give back arrays of ids.
"""

import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qilin.bytepairs import Ids
from qilin.errors import DataError, ModelError, RunError
from qilin.template import Conversation, Encoder, Span

_ROWS, _BYTES = 512, 1 << 20  # at most in a batch; a single longer row is a batch of its own
_EXAMPLES = 5


class Loss(NamedTuple):
    """A document that is not trained on as a whole. what: "dropped" or "truncated"; tokens: all it has."""

    id: str
    what: str
    tokens: int


class Block(NamedTuple):
    """The documents of a batch of rows.

    tokens: their ids, one after the other; an id that carries loss is stored as its complement, so that one array holds
    both. lengths: a line for each row, the tokens of each part of its document; zeros for a dropped one. losses: the
    first few.
    """

    tokens: Ids
    lengths: NDArray[np.int32]
    dropped: int
    truncated: int
    losses: tuple[Loss, ...]


@dataclass(frozen=True)
class Task:
    """What a worker does: which stage, with which tokenizer, up to which length."""

    stage: str
    encoder: Encoder
    length: int

    def encode(self, batch: pa.RecordBatch) -> Block:
        """The documents of a batch of rows, in order."""
        match self.stage:
            case "cpt":
                return self._passages(batch)
            case "sft":
                return self._dialogues(batch)
            case _:
                return self._pairs(batch)

    def _passages(self, batch: pa.RecordBatch) -> Block:
        ids = self.encoder.documents([text or "" for text in batch["text"].to_pylist()])
        losses = [Loss(name, "dropped", 0) for name, own in zip(_names(batch), ids, strict=True) if not len(own)]
        return _block([[~own] for own in ids], losses)

    def _dialogues(self, batch: pa.RecordBatch) -> Block:
        """Whole exchanges as far as they fit; what stands after the last reply carries no loss and is left out."""
        names = _names(batch)
        ids, spans = self._conversations(_conversations(batch["messages"]), names)
        documents, losses = [], []
        for name, own, replies in zip(names, ids, spans, strict=True):
            kept = [span for span in replies if span[1] <= self.length]
            if len(kept) < len(replies) or not replies:
                losses.append(Loss(name, "truncated" if kept else "dropped", len(own)))
            for begin, end in kept:
                np.invert(own[begin:end], out=own[begin:end])
            documents.append([own[: kept[-1][1] if kept else 0]])
        return _block(documents, losses)

    def _pairs(self, batch: pa.RecordBatch) -> Block:
        names, prompts = _names(batch), _conversations(batch["prompt"])
        sides = []
        for column in ("chosen", "rejected"):
            whole = [prompt + reply for prompt, reply in zip(prompts, _conversations(batch[column]), strict=True)]
            ids, spans = self._conversations(whole, names)
            sides.append([_parted(*parts) for parts in zip(ids, spans, prompts, strict=True)])
        documents, losses = [], []
        for name, (prompt, chosen), (other, rejected) in zip(names, *sides, strict=True):
            if not np.array_equal(prompt, other):
                raise ModelError(f"the chat template writes the prompt of {name} in two ways, depending on the reply")
            longest = len(prompt) + max(len(chosen), len(rejected))
            fits = longest <= self.length and len(chosen) and len(rejected)
            if not fits:
                losses.append(Loss(name, "dropped", longest))
            documents.append([part if fits else part[:0] for part in (prompt, chosen, rejected)])
        return _block(documents, losses)

    def _conversations(self, chats: list[Conversation], names: list[str]) -> tuple[list[Ids], list[list[Span]]]:
        try:
            return self.encoder.conversations(chats)
        except ModelError as error:
            raise ModelError(f"{error} (one of the rows {names[0]} to {names[-1]})") from error


def read(files: Iterable[Path], columns: tuple[str, ...], chosen: NDArray[np.bool_] | None) -> Iterator[pa.RecordBatch]:
    """The chosen rows of Parquet files in order, in batches of a bounded size; all rows with None."""
    at = 0
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(_ROWS, columns=["id", *columns]):
                    wanted = batch
                    if chosen is not None:
                        wanted = batch.take(pa.array(np.flatnonzero(chosen[at : at + batch.num_rows])))
                    at += batch.num_rows
                    yield from _parts(wanted)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file} cannot be read ({error}); build the folder again") from error


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows > 1 and batch.nbytes > _BYTES:
        half = batch.num_rows // 2
        yield from _parts(batch[:half])
        yield from _parts(batch[half:])
    elif batch.num_rows:
        yield batch


@contextmanager
def pool(task: Task, workers: int) -> Iterator["Pool"]:
    """Workers that encode batches until the block ends; one worker is this process itself."""
    if workers <= 1:
        yield Pool(task, None, 1)
        return
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(task,)) as executor:
        try:
            yield Pool(task, executor, 3 * workers)
        except BrokenProcessPool as error:
            executor.shutdown(wait=False, cancel_futures=True)
            raise RunError("a worker process died, most likely for want of memory; take fewer workers") from error
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


class Pool(NamedTuple):
    """Encodes batches here or in worker processes, at most `ahead` of them at a time."""

    task: Task
    executor: ProcessPoolExecutor | None
    ahead: int

    def blocks(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Block]:
        """The documents of each batch, in the order of the batches."""
        if self.executor is None:
            yield from map(self.task.encode, batches)
            return
        running: deque[Future[Block]] = deque()
        for batch in batches:
            running.append(self.executor.submit(_work, _sent(batch)))
            if len(running) >= self.ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


_task: list[Task] = []  # of a worker process


def _start(task: Task) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker is one core
    pa.set_cpu_count(1)
    _task[:] = [task]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed outright cannot tell its workers to end.
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(sent: bytes) -> Block:
    with pa.ipc.open_stream(sent) as stream:
        return _task[0].encode(stream.read_next_batch())


def _sent(batch: pa.RecordBatch) -> bytes:
    """A batch in serial form: of a slice only what it shows, unlike its pickle."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw


def _names(batch: pa.RecordBatch) -> list[str]:
    names: list[str] = batch["id"].to_pylist()
    return names


def _conversations(column: Any) -> list[Conversation]:
    """A column of lists of messages as Python sees it; a message without content has an empty one."""
    offsets, turns = column.offsets.to_pylist(), column.values
    roles, contents = turns.field("role").to_pylist(), turns.field("content").to_pylist()
    flat = [{"role": role, "content": text or ""} for role, text in zip(roles, contents, strict=True)]
    return [flat[begin:end] for begin, end in itertools.pairwise(offsets)]


def _parted(ids: Ids, replies: list[Span], prompt: Conversation) -> tuple[Ids, Ids]:
    """The ids of a prompt and of the reply to it, of the conversation that the two make."""
    own = replies[sum(message["role"] == "assistant" for message in prompt) :]
    return (ids[: own[0][0]], ids[own[0][0] : own[-1][1]]) if own else (ids, ids[:0])


def _block(documents: list[list[Ids]], losses: list[Loss]) -> Block:
    parts = [part for document in documents for part in document]
    lengths = np.array([len(part) for part in parts], np.int32).reshape(len(documents), -1)
    dropped = sum(loss.what == "dropped" for loss in losses)
    return Block(np.concatenate(parts), lengths, dropped, len(losses) - dropped, few(losses))


def few(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """The first few of each kind."""
    kinds: dict[str, list[Loss]] = {"dropped": [], "truncated": []}
    for loss in losses:
        if len(kinds[loss.what]) < _EXAMPLES:
            kinds[loss.what].append(loss)
    return (*kinds["dropped"], *kinds["truncated"])
