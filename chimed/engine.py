"""Map a function over tasks: in this process, or in local worker processes."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import pyarrow as pa

from chimed.errors import BuildError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs the same function over many tasks; which task runs where, and when, must not show in the result."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """(position of the task, its result) as they finish; the first exception of a task is raised."""
        ...


def start(workers: int) -> "Inline | Processes":
    """An engine with this many worker processes; one worker is this process itself.

    >>> dict(start(1).map(abs, [-1, -2]))
    {0: 1, 1: 2}
    """
    return Processes(workers) if workers > 1 else Inline()


class Inline(AbstractContextManager["Inline"]):
    """Runs tasks one after the other in this process."""

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        for position, task in enumerate(tasks):
            yield position, function(task)


def _calm() -> None:
    # One task is one core: the libraries' own thread pools would make workers fight over them.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


class Processes(AbstractContextManager["Processes"]):
    """Runs tasks in worker processes that live until the block ends: imports and kernels are loaded once."""

    def __init__(self, workers: int) -> None:
        # Workers are spawned, not forked: Arrow's threads do not survive a fork.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_calm)
        self._ahead = 2 * workers

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        running: dict[Future[Result], int] = {}
        waiting = iter(enumerate(tasks))
        try:
            while True:
                for position, task in waiting:
                    running[self._pool.submit(function, task)] = position
                    if len(running) >= self._ahead:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise BuildError(
                "a worker process died, most likely for want of memory; "
                "run the same command again with fewer --workers: finished parts are kept"
            ) from error
        finally:
            for future in running:
                future.cancel()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
