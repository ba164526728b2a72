"""A folder in an object store, by any URL that fsspec knows, and its mirror on this machine's disk.

The steps of a build work on files. Where a folder is a URL they work in its mirror, a folder of the cache: raw files
are brought into it first, finished ones are sent from it at the end. What is in a mirror is whole or absent, as in a
build's work folder: it is brought under another name and renamed.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from chimed.errors import BuildError, ChimedError

DONE = "done.json"  # what a folder of a build's work is complete with
THREADS = 8  # transfers at once
# What tells one version of an object from the next, in the words of each store; the first that a store has.
_VERSION = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "updated", "created")
_URL = re.compile(r"[A-Za-z][\w+.:-]+:/")  # one slash: a Path has no second one
_OF_ENDPOINTS = re.compile(r"(?<=://)[^/\s]*@|\?[^\s\"']*=[^\s\"']*")  # user and password, signature
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR)
Group = tuple[str, ...]


def is_url(place: object) -> bool:
    """Whether a place is a URL and no path.

    >>> is_url("s3://bucket/raw"), is_url(Path("s3://bucket/raw")), is_url("raw/a:b")
    (True, True, False)
    """
    return _URL.match(str(place)) is not None


def cache() -> Path:
    """The folder of all mirrors on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "chimed"


@dataclass(frozen=True, slots=True)
class Store:
    """A folder by its URL, which may hold secrets and is therefore never shown; `shown` is.

    Names are those of files below it, with slashes. Every method raises BuildError, with one sentence on what to do,
    where the store cannot be used.
    """

    url: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The URL without user, password and query.

        >>> Store("sftp://me:secret@host/raw?token=x").shown
        'sftp://host/raw'
        """
        return re.split(r"[?#]", _without_user(self.url))[0].rstrip("/")

    @property
    def root(self) -> Path:
        """The mirror: another one on each machine, whatever the user and the password."""
        return cache() / hashlib.sha256(_without_user(self.url).rstrip("/").encode()).hexdigest()[:24]

    def name(self, path: Path) -> str | None:
        """The name of a file or folder of the mirror; None for any other."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else None

    def top(self) -> set[str]:
        """The names right below it; none where there is nothing yet."""
        with self._used():
            system, base = _system(self.url)
            system.invalidate_cache()
            try:
                return {entry.rstrip("/").rpartition("/")[2] for entry in system.ls(base, detail=False)} - {""}
            except FileNotFoundError:
                return set()

    def files(self, folder: str) -> dict[str, tuple[int, int]]:
        """The files below a folder: size, and a time that stands for the version, as `bring` gives it to the copy."""
        with self._used():
            system, base = _system(self.url)
            system.invalidate_cache()
            try:
                found = system.find(f"{base}/{folder}", detail=True)
            except FileNotFoundError:
                return {}
            entries = {path.removeprefix(f"{base}/"): info for path, info in found.items() if info["type"] == "file"}
            return {self._safe(name): _stamp(info) for name, info in entries.items() if not name.endswith("/")}

    def bring(self, folders: Sequence[str], step: Callable[[str, int], Callable[[int], None]]) -> None:
        """Make the mirror's folders of these names what the store has; only what is new or changed is brought."""
        if not self.top():
            raise BuildError(f"{self.shown}: nothing is there; name the bucket and the folder that holds the files")
        self.root.mkdir(parents=True, exist_ok=True)
        listed = {name: stamp for folder in folders for name, stamp in self.files(folder).items()}
        for path in (path for folder in folders for path in (self.root / folder).rglob("*") if path.is_file()):
            if self.name(path) not in listed:
                path.unlink()
        wanted = {name: stamp for name, stamp in listed.items() if _here(self.root / name) != stamp}
        advance = step("bring raw files", sum(size for size, _ in wanted.values()))
        with ThreadPoolExecutor(THREADS) as threads:
            for size in threads.map(self._copy, wanted, wanted.values()):
                advance(size)

    def refresh(self, name: str) -> None:
        """Bring one file, unless the mirror has it as it is."""
        with self._used():
            system, base = _system(self.url)
            system.invalidate_cache()
            stamp = _stamp(system.info(f"{base}/{name}"))
        self._copy(name, stamp)

    def _copy(self, name: str, stamp: tuple[int, int]) -> int:
        path = self.root / name
        with self._alone(name) as partial:
            if _here(path) != stamp:
                self._get(name, partial)
                if partial.stat().st_size != stamp[0]:
                    raise BuildError(f"{self.shown}/{name}: changed while it was brought; run the same command again")
                os.utime(partial, ns=(stamp[1], stamp[1]))
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.replace(path)
        return stamp[0]

    def groups(self, path: Path) -> dict[str, Group]:
        """What of the mirror goes together at a path: a complete folder of work with all its files, else each file."""
        path = path.parent if path.is_file() and (path.parent / DONE).exists() else path
        files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
        names = [file.relative_to(self.root).as_posix() for file in files if file.suffix != ".partial"]
        return _grouped(names) if (path / DONE).exists() else {name: (name,) for name in names}

    def finished(self, *folders: str) -> dict[str, Group]:
        """The complete folders of work below these folders of the store."""
        return _grouped(name for folder in folders for name in self.files(folder))

    def pull(self, key: str, names: Group, size: int | None = None) -> None:
        """Bring a group, whole or not at all, unless the mirror has it: what is in a work folder never changes.

        size: of a file whose writer may have been killed on this machine, before another machine wrote it whole.
        """
        target = self.root / key
        mark = target if names == (key,) else target / DONE
        with self._alone(key) as partial:
            if mark.exists() and size in (None, mark.stat().st_size):
                return
            shutil.rmtree(partial, ignore_errors=True)
            for name in names:
                to = partial / name.removeprefix(key).lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                self._get(name, to)
            if mark is not target:
                shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)

    def push(self, names: Sequence[str], advance: Callable[[int], None] = lambda _: None) -> None:
        """Send files of the mirror; the one that a folder is complete with last."""
        with ThreadPoolExecutor(THREADS) as threads:
            for size in threads.map(self._put, [name for name in names if not name.endswith(DONE)]):
                advance(size)
        for name in names:
            if name.endswith(DONE):
                advance(self._put(name))

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None where there is none."""
        with self._used():
            system, base = _system(self.url)
            try:
                return bytes(system.cat_file(f"{base}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        with self._used():
            system, base = _system(self.url)
            system.pipe_file(f"{base}/{name}", data)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files."""
        with self._used():
            system, base = _system(self.url)
            if names:
                system.rm([f"{base}/{name}" for name in names])

    def _get(self, name: str, to: Path) -> None:
        with self._used():
            system, base = _system(self.url)
            system.get_file(f"{base}/{name}", str(to))

    def _put(self, name: str) -> int:
        with self._used():
            system, base = _system(self.url)
            system.put_file(str(self.root / name), f"{base}/{name}")
        return (self.root / name).stat().st_size

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """A place beside the mirror for what is brought; another process that wants the same waits, and finds it."""
        beside = self.root.with_name(f"{self.root.name}.partial") / hashlib.sha256(name.encode()).hexdigest()[:24]
        beside.parent.mkdir(parents=True, exist_ok=True)
        with beside.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield beside

    def _safe(self, name: str) -> str:
        path = PurePosixPath(name)
        if name != str(path) or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise BuildError(f"{self.shown}: holds a file named {name!r}, which is no path below it; rename it there")
        return name

    @contextmanager
    def _used(self) -> Iterator[None]:
        """What a store refuses as one sentence; what this machine's disk refuses goes on as it is."""
        try:
            yield
        except ChimedError:
            raise
        except Exception as error:  # of the client, of its HTTP library: there is no common base
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            raise BuildError(f"{self.shown}: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        said = _OF_ENDPOINTS.sub("", " ".join(str(error).split()))
        for secret in _secrets(self.url):
            said = said.replace(secret, "…")
        kinds, scheme = {kind.__name__ for kind in type(error).__mro__}, self.url.partition("://")[0]
        if isinstance(error, ImportError):
            return f"a package for {scheme}:// is not installed ({said[:120]}); pip install 'chimed[s3]' serves s3://"
        if "Protocol not known" in said:
            return f"{scheme}:// is no kind of URL that fsspec knows; give a folder, or s3://BUCKET/FOLDER"
        if kinds & {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
            return f"no credentials for {scheme}:// ({said[:120]}); set them in the environment, see docs/large.md"
        if isinstance(error, PermissionError):
            return f"access is refused ({said[:120]}); let these credentials list, read and write there, or give others"
        if isinstance(error, FileNotFoundError):
            return f"not found ({said[:120]}); make the bucket first, or mend the name"
        return (
            f"cannot be used ({type(error).__name__}: {said[:160]}); see to the network and to the address of the "
            "store, then run the same command again: what is finished is kept"
        )


@contextmanager
def told(*stores: Store | None) -> Iterator[None]:
    """Let errors name the URL that was asked for, not its mirror."""
    try:
        yield
    except ChimedError as error:
        for store in filter(None, stores):
            error.args = tuple(str(arg).replace(str(store.root), store.shown) for arg in error.args)
        raise


def _without_user(url: str) -> str:
    return re.sub(r"(?<=://)[^/]*@", "", url)


def _secrets(url: str) -> list[str]:
    """What of a URL no message may hold, as it stands and decoded, longest first."""
    users = re.findall(r"(?<=://)[^/]*(?=@)", url)
    found = {*users, *(user.partition(":")[2] for user in users), *re.findall(r"[?#&=]([^?#&=]+)", url)} - {""}
    return sorted(found | {unquote(one) for one in found}, key=len, reverse=True)


def _grouped(names: Any) -> dict[str, Group]:
    """The names of complete folders by folder, the one that says so last."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(name.rpartition("/")[0], []).append(name)
    done = {key: f"{key}/{DONE}" for key in found}
    return {key: (*(n for n in own if n != done[key]), done[key]) for key, own in found.items() if done[key] in own}


def _stamp(info: dict[str, Any]) -> tuple[int, int]:
    """Size and a time in whole microseconds, made of what tells the version: equal on all machines and in all runs."""
    if info.get("size") is None:
        raise ValueError("it tells no sizes of files")
    told = next((str(info[name]).strip('"') for name in _VERSION if info.get(name)), "")
    return int(info["size"]), int(hashlib.sha256(told.encode()).hexdigest()[:12], 16) * 1000


def _here(path: Path) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path there."""
    try:
        import fsspec  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise BuildError(
            f"{Store(url).shown}: a URL needs the package fsspec, which is not installed: pip install 'chimed[s3]'"
        ) from None
    if "://" not in url:
        raise BuildError(f"{url.partition(':')[0]}: a URL has two slashes, as s3://BUCKET/FOLDER")
    # A disk has folders, which must be made; a store has none, and would make a bucket.
    options = {"auto_mkdir": True} if url.startswith(("file:", "local:")) else {}
    system, base = fsspec.core.url_to_fs(url, **options)
    return system, str(base).rstrip("/")
