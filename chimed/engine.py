"""Map a function over tasks: in this process, in local worker processes, or on a Ray cluster.

A task names files, never texts, and leaves its result in files: so it runs wherever the folders of the raw files and of
the build can be seen under the same path, or are brought there (`spread`), and one that was cut off in the middle can
be run again.
"""

import atexit
import gc
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from chimed.errors import BuildError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs the same function over many tasks; which task runs where, and when, must not show in the result."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[int, Result]]:
        """(position of the task, its result) as they finish; the first exception of a task is raised."""
        ...

    def submit(self, function: Callable[[Task], Result], task: Task) -> Callable[[], Result]:
        """Begin one task beside what comes next; the result is waited for when it is called for."""
        ...


def start(workers: int, cluster: str | None = None) -> "Inline | Processes | Cluster":
    """An engine with this many worker processes; one worker is this process itself.

    cluster: the address of a Ray cluster, "auto" for the one this machine belongs to; its cores are the workers then.

    >>> dict(start(1).map(abs, [-1, -2]))
    {0: 1, 1: 2}
    """
    if cluster is not None:
        return Cluster(cluster)
    return Processes(workers) if workers > 1 else Inline()


class Inline(AbstractContextManager["Inline"]):
    """Runs tasks one after the other in this process."""

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[int, Result]]:
        for position, task in enumerate(tasks):
            yield position, function(task)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Callable[[], Result]:
        result = function(task)
        return lambda: result


def _calm() -> None:
    # One task is one core: the libraries' own thread pools would make workers fight over them.
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def _begin() -> None:
    _calm()
    atexit.register(gc.freeze)  # the end of a process would search all that was imported for cycles


@contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise BuildError(
            "a worker process died, most likely for want of memory; "
            "run the same command again with fewer --workers: finished parts are kept"
        ) from error


class Processes(AbstractContextManager["Processes"]):
    """Runs tasks in worker processes that live until the block ends: imports and kernels are loaded once."""

    def __init__(self, workers: int) -> None:
        # Workers are spawned, not forked: Arrow's threads do not survive a fork.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
        self._ahead = 2 * workers

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[int, Result]]:
        running: dict[Future[Result], int] = {}
        waiting = iter(enumerate(tasks))
        try:
            with _deaths_told():
                while True:
                    for position, task in waiting:
                        running[self._pool.submit(function, task)] = position
                        if len(running) >= self._ahead:
                            break
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()

    def submit(self, function: Callable[[Task], Result], task: Task) -> Callable[[], Result]:
        with _deaths_told():
            future = self._pool.submit(function, task)

        def result() -> Result:
            with _deaths_told():
                return future.result()

        return result

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Cluster(AbstractContextManager["Cluster"]):
    """Runs tasks on a Ray cluster, one a core; what a lost node had not finished runs again on another.

    Raises BuildError where ray is not installed, no cluster answers, or a task is lost RETRIES times over.
    """

    RETRIES = 4

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; silences its warning
        try:
            import ray  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            raise BuildError("--ray needs the package ray, which is not installed: pip install 'chimed[ray]'") from None
        try:
            if ":" in address:  # Ray itself would try for minutes
                host, _, port = address.removeprefix("ray://").rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address, logging_level="ERROR", log_to_driver=False, namespace="chimed")
        except (OSError, ValueError, RuntimeError) as error:
            raise BuildError(
                f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); "
                "start one with `ray start --head`, or leave --ray out to use this machine's cores"
            ) from None
        self._ray = ray
        # Made once: each one made is sent to every worker.
        self._remote = ray.remote(num_cpus=1, max_retries=self.RETRIES)(_calmly)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[int, Result]]:
        ray = self._ray
        ahead = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(enumerate(tasks))
        running: dict[Any, int] = {}
        try:
            with self._losses_told():
                while True:
                    for position, task in waiting:
                        running[self._begun(function, task)] = position
                        if len(running) >= ahead:
                            break
                    if not running:
                        return
                    for done in ray.wait(list(running), num_returns=1)[0]:
                        yield running.pop(done), ray.get(done)
        finally:
            for left in running:
                ray.cancel(left, force=True)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Callable[[], Result]:
        reference = self._begun(function, task)

        def result() -> Result:
            with self._losses_told():
                found: Result = self._ray.get(reference)
                return found

        return result

    def _begun(self, function: Callable[[Task], Result], task: Task) -> Any:
        return self._remote.remote(function, task)

    @contextmanager
    def _losses_told(self) -> Iterator[None]:
        try:
            yield
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error  # as the task raised it
        except self._ray.exceptions.RayError as error:
            raise BuildError(
                f"the Ray cluster lost a task {self.RETRIES + 1} times ({type(error).__name__}), most likely for want "
                "of memory; run the same command again: finished parts are kept"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()


def _calmly(function: Callable[[Task], Result], task: Task) -> Result:
    _calm()
    return function(task)
