"""An engine over machines that share no disk: a store stands between them.

A task names files in the mirrors of the first machine. Another machine has mirrors of its own: there the task is told
of those, what it reads is brought from the stores before it, and what it leaves in files is sent after it. The first
machine has a copy of all that is left, and decides from it what is decided once for the corpus.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from chimed.engine import Engine, Result, Task
from chimed.recipe import Loaded
from chimed.remote import THREADS, Group, Store, cache, told


@dataclass(frozen=True, slots=True)
class Shared:
    """What the machines have in common: the store of raw files, that of the build, and the recipe.

    digest: of the recipe. files: those that `load_recipe` reads, with their bytes: they travel with a task, since what
    is in a store must never run.
    """

    raw: Store | None
    out: Store | None
    digest: str
    files: tuple[tuple[Path, bytes], ...]

    @property
    def roots(self) -> list[Path]:
        """The mirrors of this machine, and last the folder below which it has the files of the recipe."""
        return [*(store.root for store in (self.raw, self.out) if store), cache() / f"recipe-{self.digest[:24]}"]


@dataclass(frozen=True, slots=True)
class Away:
    """A task for `work`. roots: of the first machine. groups: what it reads, or has left before, of the build."""

    function: Callable[[Any], Any]
    task: Any
    shared: Shared
    roots: list[Path]
    groups: dict[str, Group]


@dataclass(frozen=True, slots=True)
class Left:
    """What came of a task: its result, what it left in the store, and the size of each file that is no folder's."""

    result: Any
    groups: dict[str, Group]
    sizes: dict[str, int]


def shared(raw: Store | None, out: Store | None, recipe: Path | None, loaded: Loaded) -> Shared:
    """What machines have in common that build from one store to another with the recipe at a path."""
    if recipe is None:
        return Shared(raw, out, loaded.digest, ())
    own = [recipe.parent / entry.file for entry in loaded.recipe.sources if entry.file]
    files = [recipe, *own, *filter(None, [loaded.tokenizer])]
    return Shared(raw, out, loaded.digest, tuple((file, file.read_bytes()) for file in files))


def work(away: Away) -> Left:
    """Do a task on this machine, whichever it is, and send to the store what it leaves."""
    raw, out = away.shared.raw, away.shared.out
    *mirrors, recipe = away.shared.roots
    moves = list(zip(away.roots, mirrors, strict=False))
    for path, data in away.shared.files:
        moves.append((path, _written(recipe / os.path.abspath(path)[1:], data)))  # noqa: PTH100 - links stay
    task = each_path(away.task, lambda path: _moved(path, moves))
    with told(raw, out):
        for path in paths(task):
            if raw and (name := raw.name(path)):
                raw.refresh(name)
        if out is None:
            return Left(away.function(task), {}, {})
        for key, names in away.groups.items():
            out.pull(key, names)
        own = [path for path in paths(task) if out.name(path)]
        for path in own:
            path.parent.mkdir(parents=True, exist_ok=True)
        result = away.function(task)
        left = {key: group for path in own for key, group in out.groups(path).items() if key not in away.groups}
        for group in left.values():
            out.push(group)
    sizes = {key: (out.root / key).stat().st_size for key, names in left.items() if names == (key,)}
    return Left(each_path(result, lambda path: _moved(path, [(here, there) for there, here in moves])), left, sizes)


class Mirrored:
    """An engine that maps on other machines; what is submitted, and what is done already, this machine's workers do."""

    def __init__(self, cluster: Engine, own: Engine, shared: Shared) -> None:
        self._cluster, self._own, self._shared, self._out = cluster, own, shared, shared.out
        self._roots = shared.roots
        self._there = shared.out.finished(".work/parts", ".work/stages") if shared.out else {}

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[int, Result]]:
        tasks = list(tasks)
        here: list[int] = []
        away: list[int] = []
        for position, task in enumerate(tasks):
            (here if self._done(task) else away).append(position)
        for number, result in self._own.map(function, (self._brought(tasks[position]) for position in here)):
            yield here[number], result
        sent = (self._sent(function, tasks[position]) for position in away)
        for number, found in self._pulled(self._cluster.map(work, sent)):
            yield away[number], found

    def _pulled(self, finished: Iterator[tuple[int, Left]]) -> Iterator[tuple[int, Any]]:
        """What tasks gave, once what they left is here; the next ones end meanwhile."""
        coming: deque[tuple[int, Any, list[Future[None]]]] = deque()

        def first() -> tuple[int, Any]:
            number, result, pulls = coming.popleft()
            for pull in pulls:
                pull.result()
            return number, result

        with ThreadPoolExecutor(THREADS) as threads:
            for number, left in finished:
                self._there.update(left.groups)
                pulls = [
                    threads.submit(self._out.pull, key, names, left.sizes.get(key))
                    for key, names in left.groups.items()
                    if self._out
                ]
                coming.append((number, left.result, pulls))
                if len(coming) > THREADS:
                    yield first()
            while coming:
                yield first()

    def submit(self, function: Callable[[Task], Result], task: Task) -> Callable[[], Result]:
        return self._own.submit(function, task)

    def _done(self, task: Any) -> bool:
        """Whether all files of a task are there: then it has left its own, or it only reads."""
        return all(path.exists() or self._name(path) in self._there for path in paths(task))

    def _name(self, path: Path) -> str:
        return (self._out and self._out.name(path)) or ""

    def _brought(self, task: Task) -> Task:
        """A task whose folders are here that are in the store."""
        for name in map(self._name, paths(task)):
            if self._out and name in self._there:
                self._out.pull(name, self._there[name])
        return task

    def _sent(self, function: Callable[[Any], Any], task: Any) -> Away:
        """A task for another machine; what it reads is in the store then."""
        named, groups, own = paths(self._brought(task)), dict[str, Group](), self._shared
        for path in named:
            if self._out and self._name(path) and path.exists():
                groups |= self._out.groups(path)
        for key in groups.keys() - self._there.keys():
            if self._out:
                self._out.push(groups[key])
                self._there[key] = groups[key]
        if not any(path in named for path, _ in own.files):
            own = replace(own, files=())
        return Away(function, task, own, self._roots, groups)


def clear(out: Store) -> None:
    """Remove from the store the runs of stages that the build has removed here."""
    out.remove([name for name in out.files(".work/stages") if not (out.root / name).exists()])


def paths(task: Any) -> list[Path]:
    """Every path that a task names, each once."""
    found: dict[Path, Path] = {}
    each_path(task, lambda path: found.setdefault(path, path))
    return list(found)


def each_path(value: Any, change: Callable[[Path], Path]) -> Any:
    """A value with its paths changed, in dataclasses, tuples, lists and dictionaries; what has none is the same.

    >>> each_path([Path("a"), 1], lambda path: path / "b")
    [PosixPath('a/b'), 1]
    """
    if isinstance(value, Path):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        old = {own.name: getattr(value, own.name) for own in fields(value)}
        new = each_path(old, change)
        return value if new is old else replace(value, **new)
    if type(value) is dict:
        changed = each_path(list(value.values()), change)
        return dict(zip(value, changed, strict=True)) if _differ(changed, value.values()) else value
    if type(value) in (tuple, list):
        changed = [each_path(one, change) for one in value]
        return type(value)(changed) if _differ(changed, value) else value
    return value


def _differ(changed: Iterable[Any], values: Iterable[Any]) -> bool:
    return any(one is not other for one, other in zip(changed, values, strict=True))


def _moved(path: Path, moves: Iterable[tuple[Path, Path]]) -> Path:
    return next((new / path.relative_to(old) for old, new in moves if path.is_relative_to(old)), path)


def _written(path: Path, data: bytes) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_bytes(data)
        partial.replace(path)
    return path
