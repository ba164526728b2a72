"""Which raw files a source reads, and their bytes with every archive and compression seen through.

`find` lists them, `opened` gives the bytes of one as a stream of chunks: zip members are streamed and never written to
disk, gz, xz, zst and bz2 are told by their first bytes. What an archive may not hold (paths that lead out of it,
links, passwords, bombs, archives of their own) ends as a `RowError`, what the disk refuses as a `SourceError`.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from unicodedata import normalize

import pyarrow as pa

from chimed.errors import RowError, SourceError
from chimed.records import Split
from chimed.sources.spec import Source

CHUNK = 1 << 20
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PIECE = 1 << 16
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_COMPRESSED = {".gz", ".xz", ".zst", ".bz2"}
_METADATA = {"dataset_info.json", "state.json", "dataset_dict.json"}
_LITTER = {"Thumbs.db", "desktop.ini"}


@dataclass(frozen=True, slots=True)
class RawFile:
    """One readable file, possibly inside a zip.

    name: path below RAW/<source>/, with slashes, NFC; a zip member is `dialogues.zip!inner/a.txt`.
    path: the file on disk.  member: "" or the member's own name inside the zip.
    size: bytes, uncompressed for zip members, as on disk for everything else.
    joins: for each lookup of the source its files, None where it is for other files; () where its rows need none.
    rest: whether its rows of unknown split are read. A file whose rows lookups deal to splits is listed once a split.
    """

    name: str
    path: Path
    member: str
    split: Split
    size: int
    joins: tuple[tuple["RawFile", ...] | None, ...] = ()
    rest: bool = True

    @property
    def inner(self) -> PurePosixPath:
        """What is read at last, without its archive or compression: `b.csv` for `a.zip!x/b.csv.gz`."""
        path = PurePosixPath(self.name.rpartition("!")[2] if self.member else self.name)
        while path.suffix.lower() in _COMPRESSED:
            path = path.with_suffix("")
        return PurePosixPath(path.name)


@dataclass(frozen=True, slots=True)
class Unread:
    """A file below RAW/<source>/ that gives no rows, and why, so that nothing is ignored in silence."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a file on disk was when it was read; two that are equal hold the same bytes."""

    size: int
    mtime_ns: int
    sha256: str


def fingerprint(file: RawFile) -> Fingerprint:
    """The size, time of change and SHA-256 of the file on disk: of the whole zip for a member."""
    size, mtime_ns = stamp(file)
    with file.path.open("rb") as raw:
        return Fingerprint(size, mtime_ns, hashlib.file_digest(raw, "sha256").hexdigest())


def stamp(file: RawFile) -> tuple[int, int]:
    """Size and time of change of the file on disk; `SourceError` when there is none."""
    with _disk(file):
        found = file.path.stat()
        return found.st_size, found.st_mtime_ns


def find(source: Source, raw: Path) -> tuple[list[RawFile], list[Unread]]:
    """The files of a source below RAW/<source>/ and the files there that it leaves, each sorted by name.

    The first glob of `source.files` that matches decides the split. A glob matches the name, the name without its
    .gz, .xz, .zst or .bz2, and the part of a member's name behind the "!"; `*` stays within a folder, `**` does not.
    An archive that cannot be listed and members that may not be read are among the files, so that they end as rejects.
    Files that are only looked up hang on those whose rows they join (`looked_up`).
    """
    folder = raw / source.name
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise SourceError(
            f"{folder}: expected the folder with the raw files of {source.title}, found {found}; "
            "chimed sources says where to get them"
        )
    globs = [(_pattern(glob), split) for glob, split in source.files.items()]
    asides = [_pattern(glob) for lookup in source.lookups for glob in lookup.files]
    files: dict[str, RawFile] = {}
    aside: list[RawFile] = []
    unread: list[Unread] = []
    for path, outer in _walk(folder, unread):
        wanted = _split(globs, outer)
        for name, member, size, why in _contents(path, outer, wanted is not None):
            split = _split(globs, name)
            if split is None and why == "refused":
                split = wanted or next(iter(source.files.values()))
            if not why and any(one.fullmatch(form) for one in asides for form in _forms(name)):
                aside.append(RawFile(name, path, member, "train", size))
            elif why not in {"", "refused"} or split is None:
                unread.append(Unread(name, why or "no pattern of the source matches it"))
            elif name in files:
                raise SourceError(f"{folder}: two files are called {name!r} (their letters are composed differently)")
            else:
                files[name] = RawFile(name, path, member, split, size)
    aside.sort(key=lambda file: file.name)
    read = [part for _, file in sorted(files.items()) for part in _joined(source, file, aside)]
    used = looked_up(read)
    unread += [Unread(file.name, "looked up, but no row here needs it") for file in aside if file not in used]
    return read, sorted(unread, key=lambda file: file.name)


def looked_up(files: Iterable[RawFile]) -> list[RawFile]:
    """The files that the rows of these are joined with, each once, by name."""
    found = {one.name: one for file in files for group in file.joins for one in group or ()}
    return [found[name] for name in sorted(found)]


def _joined(source: Source, file: RawFile, aside: list[RawFile]) -> Iterator[RawFile]:
    """The file with what its rows are looked up in, once for each split that they can be of."""

    def among(globs: tuple[str, ...], name: str) -> bool:
        return any(_pattern(glob).fullmatch(form) for glob in globs for form in _forms(name))

    joins = tuple(
        tuple(one for one in aside if among(lookup.files, one.name)) if among(lookup.into, file.name) else None
        for lookup in source.lookups
    )
    if not any(group is not None for group in joins):
        yield file
        return
    lists = [lookup.split for lookup, found in zip(source.lookups, joins, strict=True) if lookup.split and found]
    for split in dict.fromkeys([file.split, *lists]):
        yield replace(file, split=split, joins=joins, rest=split == file.split)


def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", normalize("NFC", glob))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(
        known.get(part) or (part.replace("[!", "[^") if part[:1] == "[" and part[-1:] == "]" else re.escape(part))
        for part in parts
    )
    return re.compile(f"(?:{body})")


def _split(globs: list[tuple[re.Pattern[str], Split]], name: str) -> Split | None:
    return next((split for glob, split in globs if any(glob.fullmatch(form) for form in _forms(name))), None)


def _forms(name: str) -> set[str]:
    """What a glob can match of a name: all of it, without the compression's suffix, and behind the archive."""
    plain = name.removesuffix(PurePosixPath(name).suffix) if PurePosixPath(name).suffix in _COMPRESSED else name
    return {name, plain, name.partition("!")[2] or name, plain.partition("!")[2] or plain}


def _walk(folder: Path, unread: list[Unread]) -> Iterator[tuple[Path, str]]:
    for root, folders, names in os.walk(folder, followlinks=True):
        here = Path(root)
        above = [one.resolve() for one in (here, *here.parents) if one.is_relative_to(folder)]
        for name in list(folders):
            target = (here / name).resolve()
            if (here / name).is_symlink() and any(one.is_relative_to(target) for one in above):
                folders.remove(name)
                unread.append(Unread(_name(folder, here / name), "a link back to a folder that holds it"))
        folders.sort()
        for name in sorted(names):
            yield here / name, _name(folder, here / name)


def _name(folder: Path, path: Path) -> str:
    return normalize("NFC", path.relative_to(folder).as_posix())


def _contents(path: Path, name: str, wanted: bool) -> Iterator[tuple[str, str, int, str]]:
    """(name, member, size, why) of all that a file on disk holds; why is "", "refused" or why it is not read."""
    base = PurePosixPath(name).name
    if base == ".fetched.json":
        return  # the record of chimed fetch
    if _is_litter(name):
        yield name, "", 0, "hidden, or litter of an operating system"
    elif base in _METADATA and (base == "dataset_dict.json" or any(path.parent.glob("*.arrow"))):
        yield name, "", 0, "metadata"
    elif path.is_symlink() and not path.exists():
        if wanted:
            raise SourceError(f"{path}: a link to {path.readlink()}, which is not there; mend or remove the link")
        yield name, "", 0, "a link to nothing"
    elif not stat.S_ISREG(path.stat().st_mode):
        yield name, "", 0, "not a regular file"
    else:
        yield from _members(path, name)


def _members(path: Path, name: str) -> Iterator[tuple[str, str, int, str]]:
    whole = RawFile(name, path, "", "train", path.stat().st_size)
    with _disk(whole), path.open("rb") as raw:
        packed = raw.read(4) in ZIP
    listed = []
    try:
        if packed:
            with zipfile.ZipFile(path) as archive:
                listed = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        yield name, "", whole.size, "refused"
        return
    if not listed or is_workbook({info.filename for info in listed}):
        yield name, "", whole.size, ""
        return
    last = {info.filename: info for info in listed}
    for info in listed:
        inner = _decoded(info)
        if info.is_dir():
            continue
        if last[info.filename] is not info:
            why = "a later member of the archive has the same name"
        elif _is_litter(inner):
            why = "hidden, or litter of an operating system"
        else:
            why = "refused" if refusal(info) else ""
        yield f"{name}!{inner}", info.filename, info.file_size, why


def _is_litter(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in {".", ".."} for part in parts)
    return hidden or "__MACOSX" in parts or parts[-1] in _LITTER


def is_workbook(names: set[str]) -> bool:
    """Whether a zip with members of these names is a spreadsheet."""
    return {"[Content_Types].xml", "xl/workbook.xml"} <= names


def _decoded(info: zipfile.ZipInfo) -> str:
    """A member's name as its author wrote it: without the flag for UTF-8, Chinese zips hold UTF-8 or GB18030."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            # GB18030 takes nearly any bytes: what holds no common character of Chinese was never written in it.
            chinese = name.encode("cp437").decode("gb18030")
            name = name if chinese.encode("gb2312", "ignore").isascii() else chinese
        with suppress(UnicodeError):
            name = info.filename.encode("cp437").decode("utf-8")
    return normalize("NFC", name.replace("\\", "/"))


def refusal(info: zipfile.ZipInfo) -> RowError | None:
    """Why a member may not be read, if so."""
    name = _decoded(info)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return RowError("unsafe-path", f"the member {name!r} leads out of the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        return RowError("unsafe-path", f"the member {name!r} is a link")
    if info.flag_bits & 1:
        return RowError("encrypted-member", f"the member {name!r} needs a password; unpack it by hand")
    if info.file_size > 1 << 30 and info.file_size > 200 * info.compress_size:
        times = info.file_size // max(info.compress_size, 1)
        return RowError("suspicious-archive", f"{name!r} unpacks to {info.file_size:,} bytes, {times:,} times its size")
    return None


@contextmanager
def _disk(file: RawFile) -> Iterator[None]:
    """What the disk refuses, as one sentence."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"{file.path}: the file is gone; fetch the source again") from None
    except PermissionError:
        raise SourceError(f"{file.path}: not allowed to read it; change its permissions") from None
    except IsADirectoryError:
        raise SourceError(f"{file.path}: a folder stands where a file is expected; move it away") from None
    except OSError as fault:
        if fault.errno is None:  # a decompressor's complaint, not the disk's
            raise
        raise SourceError(f"{file.path}: cannot be read: {fault.strerror}") from None


@lru_cache(maxsize=1)
def _zip(path: Path, _stamp: tuple[int, int], _process: int) -> zipfile.ZipFile:
    """The zip last used: its list of members is read once, not once a member. A forked process opens its own."""
    return zipfile.ZipFile(path)


def _member(file: RawFile) -> IO[bytes]:
    try:
        archive = _zip(file.path, stamp(file), os.getpid())
        info = archive.getinfo(file.member)
        if fault := refusal(info):
            raise fault
        return archive.open(info)
    except KeyError:
        raise SourceError(f"{file.path}: the member {file.member!r} is gone; find the files again") from None
    except (NotImplementedError, RuntimeError) as fault:
        raise RowError("unsupported-archive", f"{fault}; unpack the archive by hand") from None


def _unpacked(raw: IO[bytes]) -> io.BufferedIOBase:
    """A stream with its compressions taken off, as its first bytes tell them."""
    stream: Any = raw
    for _ in range(3):
        magic = stream.peek(10)[:10]
        if magic.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=stream, mode="rb")
        elif magic.startswith(b"\xfd7zXZ\x00"):
            stream = lzma.LZMAFile(stream)  # noqa: SIM115 - what has to be closed is the file below it
        elif _BZIP2.match(magic):
            stream = bz2.BZ2File(stream)
        elif magic.startswith(b"\x28\xb5\x2f\xfd"):
            packed = pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")
            stream = io.BufferedReader(packed, _PIECE)
        else:
            return cast(io.BufferedIOBase, stream)
    raise RowError("nested-archive", "compressed more than twice; unpack it by hand")


def _damage(fault: Exception) -> RowError:
    """A decompressor's complaint as a reject; what the disk complains of goes on as it is."""
    if isinstance(fault, OSError) and fault.errno is not None:
        raise fault
    cut = isinstance(fault, EOFError) or "runcated" in str(fault)
    return RowError("truncated-archive" if cut else "damaged-archive", f"{fault}; fetch the file again")


def _chunks(raw: IO[bytes], length: int) -> Iterator[bytes]:
    """Chunks of CHUNK bytes, the last one shorter. What was read before a fault is given before it is raised."""
    fault: RowError | None = None
    stream: io.BufferedIOBase | None = cast(io.BufferedIOBase, raw) if length > 0 else None
    while length and fault is None:
        parts: list[bytes] = []
        room = min(CHUNK, length) if length > 0 else CHUNK
        while room:
            try:
                stream = stream or _unpacked(raw)
                part = stream.read1(min(room, _PIECE))
            except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError) as broken:
                fault = _damage(broken)
                break
            if not part:
                break
            parts.append(part)
            room -= len(part)
        if parts:
            yield b"".join(parts)
        if room:
            break
        length -= sum(map(len, parts)) if length > 0 else 0
    if fault:
        raise fault


@contextmanager
def opened(file: RawFile, start: int = 0, stop: int = -1) -> Iterator[Iterator[bytes]]:
    """The bytes of a file, uncompressed, as an iterator of chunks of a megabyte.

    `start` and `stop` cut out a range of a file that lies uncompressed on disk; stop=-1 gives all of any file. Raises
    `SourceError` for what the disk refuses and `RowError` for a member that may not be read. The iterator raises
    `RowError` (`truncated-archive`, `damaged-archive`) behind the last bytes that could be unpacked.
    """
    with _disk(file), _member(file) if file.member else file.path.open("rb") as raw:
        if stop >= 0:
            raw.seek(start)
        yield _chunks(raw, stop - start if stop >= 0 else -1)
