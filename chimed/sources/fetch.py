"""Downloads the raw files of sources from where upstream publishes them, and goes on where an earlier run was cut off.

A file is written to `.<name>.part` and takes its name when it is complete and its sha256 agrees; `.fetched.json` in the
source's folder says where each file came from (both hidden, so that no build reads them). A file that was put there by
hand, or changed since it was fetched, is kept. HF_ENDPOINT and HF_TOKEN are those of huggingface_hub; proxies are those
of the environment (https_proxy, no_proxy).
"""

import difflib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from chimed.errors import SourceError
from chimed.sources import discover
from chimed.sources.origins import Remote
from chimed.sources.spec import Source
from chimed.sources.transfer import Place, Step, Transfer, disk
from chimed.sources.web import Web

State = Literal["fetched", "present", "kept", "failed", "by-hand"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one file of a source, or of what has to be got by hand.

    state: fetched (now), present (as it was fetched before), kept (there, but not known to be upstream's), failed, or
        by-hand; `detail` says why and what to do.  path: on disk.  size: bytes.
    """

    source: str
    state: State
    path: str
    url: str = ""
    license: str = ""
    size: int = 0
    sha256: str = ""
    detail: str = ""


def named(names: Sequence[str]) -> list[Source]:
    """The sources of these names, each once. Raises SourceError with every unknown name and what may be meant.

    >>> [source.title for source in named(["cmexam", "cmexam"])]
    ['CMExam']
    >>> named(["cmexan"])
    Traceback (most recent call last):
    chimed.errors.SourceError: cmexan: no such source; did you mean 'cmexam'? All of them: chimed sources
    """
    known = discover()
    faults = []
    for name in names:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? All of them" if near else "all of them"
        faults += [] if name in known else [f"{name}: no such source; {hint}: chimed sources"]
    if faults:
        raise SourceError("\n".join(faults))
    return [known[name] for name in dict.fromkeys(names)]


def fetch(
    source: Source,
    raw: Path,
    step: Step = lambda name, total: lambda amount: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Fetched]:
    """Brings the files of a source below RAW/<source>/, and says of each what became of it; one failure stops no other.

    `step` is told of each file and its bytes (0: not known). Raises SourceError only where HF_ENDPOINT or HF_TOKEN is
    of no use.
    """
    origin = source.origin
    web = Web.of_environment()
    found = []
    for remote in origin.files:
        try:
            place = _place(source, remote, raw)
            found.append(_already(place) or _download(web, place, step, sleep))
        except SourceError as fault:
            path = str(raw / source.name / remote.path)
            found.append(Fetched(source.name, "failed", path, remote.url, source.license, detail=str(fault)))
    if origin.where or not origin.files:
        where = origin.where or f"Download it by hand from {source.homepage or 'where it is published'}"
        detail = f"{where}; put the files into {raw / source.name}"
        found.append(Fetched(source.name, "by-hand", str(raw / source.name), license=source.license, detail=detail))
    return found


def check(found: Sequence[Fetched]) -> None:
    """Raises SourceError when a file failed, one sentence each, or when there was nothing to fetch at all."""
    faults = [entry.detail for entry in found if entry.state == "failed"]
    if not faults and all(entry.state == "by-hand" for entry in found):
        faults = [f"{entry.source}: cannot be fetched. {entry.detail}" for entry in found]
    if faults:
        raise SourceError("\n".join(faults))


def _place(source: Source, remote: Remote, raw: Path) -> Place:
    """Where a file goes. A path that leads out of RAW/<source>/, itself or by a link, or hides the file is refused."""
    folder = raw / source.name
    parts = PurePosixPath(remote.path).parts
    plain = all(part.isprintable() and part[0] != "." and not set('\\:*?"<>|') & set(part) for part in parts)
    if not parts or not plain or "/".join(parts) != remote.path:
        raise SourceError(
            f"{remote.url}: would be written to {remote.path!r}, which is no safe path; it was not fetched"
        )
    target = folder.joinpath(*parts)
    with disk(target):
        inside = target.parent.resolve().is_relative_to(folder.resolve())
        if not inside or target.is_symlink() or target.is_dir():
            raise SourceError(f"{target}: a folder, or a link that may lead elsewhere, stands there; move it away")
        target.parent.mkdir(parents=True, exist_ok=True)
    return Place(source, remote, folder, target)


def _already(place: Place) -> Fetched | None:
    """The file that is there, if any: as it was fetched, or kept."""
    if not place.target.exists():
        return None
    with disk(place.target):
        sha256 = _digest(place.target)
    known = place.recorded()
    fetched = known.get("sha256", "") if known.get("url") == place.remote.url else ""
    wanted = place.remote.sha256 or fetched
    if sha256 == wanted:
        return _found(place, "present", sha256)
    differs = f"has the sha256 {sha256}, not {wanted}" if wanted else f"was not fetched from {place.remote.url}"
    return _found(place, "kept", sha256, f"{place.target}: {differs}; it is kept: move it away to fetch it anew")


def _download(web: Web, place: Place, step: Step, sleep: Callable[[float], None]) -> Fetched:
    transfer = Transfer(web, place, step)
    transfer.run(sleep)
    with disk(place.part):
        sha256 = _digest(place.part)
    wanted = place.remote.sha256 or transfer.linked
    if wanted and sha256 != wanted:
        with disk(place.part):
            place.part.unlink()
        place.write_down(None)
        raise SourceError(
            f"{transfer.address}: the file has the sha256 {sha256}, not {wanted}; it was thrown away: "
            "upstream or the way here changed it"
        )
    place.write_down(
        {
            "url": place.remote.url,
            "address": transfer.address,
            "sha256": sha256,
            "bytes": place.part.stat().st_size,
            "license": place.source.license,
            "date": transfer.date,
            "etag": transfer.validator,
        }
    )
    with disk(place.target):
        place.part.replace(place.target)
    return _found(place, "fetched", sha256)


def _found(place: Place, state: State, sha256: str, detail: str = "") -> Fetched:
    name, target, size = place.source.name, str(place.target), place.target.stat().st_size
    return Fetched(name, state, target, place.remote.url, place.source.license, size, sha256, detail)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
