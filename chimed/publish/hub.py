"""Pushes a build to the Hugging Face Hub: one data set repository, a configuration a stage, one commit, one tag.

The repository is made equal to the build: files that it has already are not sent again, shards of an earlier build are
removed, whatever else stands in it is left alone. A push that was cut off sends only what is missing: large files are
kept by the Hub as they arrive, and the commit is made at the end.
"""

import hashlib
import importlib
import json
import os
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from chimed.errors import BuildError
from chimed.outcome import Progress
from chimed.publish.collection import collection_card
from chimed.publish.finished import Finished, finished
from chimed.publish.licences import Licensed, check, licensed
from chimed.sources.spec import STAGES

_ATTEMPTS = 4  # each starts with what the Hub has; the client tries again within
_AGAIN = {408, 409, 412, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 300.0
_BATCH = 8  # files sent at a time
_CARD = "README.md"
_OURS = re.compile(
    rf"({'|'.join(STAGES)})/([^/]*\.parquet|README\.md|LICENSE\.md|manifest\.json|(plots/)?plot-[^/]*\.png)"
)
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Push:
    """What is to be pushed, to where.

    repo: ORG/NAME.  token_file: where the token is; None for HF_TOKEN, and without that for the one of `hf auth login`.
    public: whether the repository may be read by everyone.
    allowed: licences that are pushed although they do not let rows be passed on; None allows any.
    """

    out: Path
    repo: str
    token_file: Path | None = None
    public: bool = False
    allowed: Collection[str] | None = ()
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did, or with `dry_run` would do.

    uploaded: bytes by path.  deleted: paths.  present: number of files that the repository had already.
    commit: the commit that holds the build, "" after a dry run.
    """

    repo: str
    url: str
    private: bool
    uploaded: dict[str, int]
    deleted: tuple[str, ...]
    present: int
    commit: str
    tag: str


@dataclass(frozen=True, slots=True)
class _Item:
    """A file of the repository. digest: sha256; blob: git's name for its content, by which small files are compared."""

    content: Path | bytes
    size: int
    digest: str
    blob: str = ""


def token_of(path: Path | None) -> str:
    """The token in a file, or in HF_TOKEN, or "". Raises BuildError for what cannot be a token; never shows it."""
    try:
        token = (path.read_text(encoding="utf-8") if path else os.environ.get("HF_TOKEN", "")).strip()
    except (OSError, ValueError):
        raise BuildError(f"{path}: cannot be read as text; name the file that holds the token") from None
    where = str(path) if path else "HF_TOKEN"
    if path and not token:
        raise BuildError(f"{where}: is empty; put a token of the Hub's settings there")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise BuildError(f"{where}: holds a character that no token has; copy it again from the Hub's settings")
    return token


def push(request: Push, progress: Progress, sleep: Callable[[float], None] = time.sleep) -> Pushed:
    """Makes the repository equal to the build, and tags it `build-<digest>`; a second push of a build sends nothing.

    Raises BuildError, one sentence with what to do, where the build, its licences, the token or the Hub stand in the
    way; the same command goes on from there.
    """
    if not _REPO.fullmatch(request.repo):
        raise BuildError(f"{request.repo!r}: is no repository; name it as ORG/NAME, with letters, digits, - _ and .")
    token = token_of(request.token_file)
    stages = finished(request.out)
    sources = licensed(stages)
    check(sources, request.allowed)
    try:
        hub = importlib.import_module("huggingface_hub")
        for part in ("constants", "errors", "utils.logging"):  # which it would not load by itself
            importlib.import_module(f"huggingface_hub.{part}")
    except ImportError:
        raise BuildError("chimed push needs huggingface_hub: pip install 'chimed[hub]'") from None
    tag = f"build-{_digest(stages)[:12]}"
    items = _items(stages, sources, request.repo)
    with _quiet(hub):
        remote = _Remote(hub, request, token, progress)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return remote.equal(items, tag, _message(stages))
            except BuildError:
                raise
            except remote.failures as error:
                wait = remote.wait(error, attempt)
            sleep(wait)
    raise AssertionError  # the last attempt returns or raises


def _digest(stages: list[Finished]) -> str:
    """What names the build: the digests of its stages."""
    return hashlib.sha256(" ".join(f"{s.stage} {s.manifest['digest']}" for s in stages).encode()).hexdigest()


def _message(stages: list[Finished]) -> str:
    return "chimed: " + ", ".join(f"{stage.stage} {stage.manifest['digest'][:12]}" for stage in stages)


def _items(stages: list[Finished], sources: list[Licensed], repo: str) -> dict[str, _Item]:
    """The files of the repository by path. A file that is not as the build left it is refused."""
    items = {_CARD: _small(collection_card(stages, sources, repo).encode())}
    for stage in stages:
        for name, digest in stage.manifest["files"].items():
            path = stage.folder / name
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != digest:
                raise BuildError(f"{path}: was changed since it was built; build the stage anew")
            small = not name.endswith(".parquet")
            item = _small(path.read_bytes()) if small else _Item(path, path.stat().st_size, digest, _blob(path))
            items[f"{stage.stage}/{name}"] = item
        items[f"{stage.stage}/manifest.json"] = _small((stage.folder / "manifest.json").read_bytes())
    return items


def _small(content: bytes) -> _Item:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return _Item(content, len(content), hashlib.sha256(content).hexdigest(), blob)


def _blob(path: Path) -> str:
    """Git's name for a file's content, or "" for one too large for the Hub to keep it in git."""
    return _small(path.read_bytes()).blob if path.stat().st_size < 10 << 20 else ""


class _Remote:
    """The repository on the Hub. failures: what the client raises when the Hub or the line to it fails."""

    def __init__(self, hub: Any, request: Push, token: str, progress: Progress) -> None:
        self.hub, self.request = hub, request
        self.endpoint = (os.environ.get("HF_ENDPOINT", "").strip() or hub.constants.ENDPOINT).rstrip("/")
        self.api = hub.HfApi(endpoint=self.endpoint, token=token or None, library_name="chimed")
        refused = hub.errors.HfHubHTTPError
        # The client's HTTP library differs from version to version; its base error is a base of the Hub's.
        line = next(base for base in refused.__mro__ if base.__name__ == "HTTPError")
        # A RuntimeError is what failed while a file was sent; a ValueError is what the Hub said no to in its answer, or
        # an answer that is not the Hub's.
        self.failures = (refused, line, RuntimeError, ConnectionError, TimeoutError, ValueError)
        self.progress = progress
        self._advance: Callable[[int], None] | None = None

    def equal(self, items: dict[str, _Item], tag: str, message: str) -> Pushed:
        """Sends and commits what differs, and tags it; may be called again after any failure."""
        info = self._info()
        held = self._held() if info else {}
        missing = {path: item for path, item in items.items() if not _same(item, held.get(path))}
        stale = sorted(path for path in held.keys() - items.keys() if _ours(path))
        private = bool(info.private) if info else not self.request.public
        commit = info.sha if info else ""
        if not self.request.dry_run:
            if missing or stale:
                commit = self._commit(missing, stale, commit, message)
            self.api.create_tag(self.request.repo, tag=tag, revision=commit, repo_type="dataset", exist_ok=True)
        uploaded = {path: item.size for path, item in sorted(missing.items())}
        url = f"{self.endpoint}/datasets/{self.request.repo}"
        commit = "" if self.request.dry_run else commit
        return Pushed(self.request.repo, url, private, uploaded, tuple(stale), len(items) - len(missing), commit, tag)

    def _info(self) -> Any:
        """What the Hub says of the repository, which is made unless this is a dry run; None without one."""
        try:
            info = self.api.repo_info(self.request.repo, repo_type="dataset")
        except self.hub.errors.RepositoryNotFoundError:
            if self.request.dry_run:
                return None
            self.api.create_repo(self.request.repo, repo_type="dataset", private=not self.request.public, exist_ok=True)
            info = self.api.repo_info(self.request.repo, repo_type="dataset")
        if info.private is False and not self.request.public:
            raise BuildError(
                f"{self.request.repo}: everyone can read it; make it private in its settings, or add --public"
            )
        return info

    def _held(self) -> dict[str, Any]:
        tree = self.api.list_repo_tree(self.request.repo, recursive=True, repo_type="dataset")
        return {entry.path: entry for entry in tree if hasattr(entry, "blob_id")}

    def _commit(self, missing: dict[str, _Item], stale: list[str], parent: str, message: str) -> str:
        adds = [
            self.hub.CommitOperationAdd(path, str(item.content) if isinstance(item.content, Path) else item.content)
            for path, item in missing.items()
        ]
        if self._advance is None:
            self._advance = self.progress.step("upload", len(adds))
        for start in range(0, len(adds), _BATCH):
            batch = adds[start : start + _BATCH]
            self.api.preupload_lfs_files(self.request.repo, batch, repo_type="dataset")
            self._advance(len(batch))
        operations = [*adds, *(self.hub.CommitOperationDelete(path) for path in stale)]
        done = self.api.create_commit(
            self.request.repo, operations, commit_message=message, repo_type="dataset", parent_commit=parent or None
        )
        return str(done.oid)

    def wait(self, error: Exception, attempt: int) -> float:
        """The seconds until the next attempt. Raises BuildError where none would help, or this was the last."""
        inner = error
        while isinstance(inner, RuntimeError) and isinstance(inner.__cause__, Exception):
            inner = inner.__cause__
        if not isinstance(inner, self.failures):
            raise error
        response = getattr(inner, "response", None) if isinstance(inner, self.failures[0]) else None
        code = response.status_code if response is not None else None
        if code is not None and code not in _AGAIN:
            raise BuildError(f"{self._refusal(code, inner)}; then: {self._again()}") from None
        if code is None and isinstance(inner, ValueError) and not isinstance(inner, json.JSONDecodeError):
            raise BuildError(
                f"{self.request.repo}: {self.endpoint} refused it ({_reason(inner)}); then: {self._again()}"
            ) from None
        if attempt == _ATTEMPTS:
            why = f"answered {code}" if code is not None else f"could not be reached ({_reason(inner)})"
            raise BuildError(
                f"{self.endpoint}: {why}, {attempt} times; what arrived is kept, go on with: {self._again()}"
            ) from None
        asked = _asked(response.headers) if response is not None else None
        return min(2.0**attempt if asked is None else asked, _LONGEST_WAIT)

    def _refusal(self, code: int, error: Exception) -> str:
        repo, owner = self.request.repo, self.request.repo.partition("/")[0]
        match code:
            case 401:
                return (
                    f"{self.endpoint}: knows no such token (401); set HF_TOKEN, or --token-file, to one that may "
                    f"write, from {self.endpoint}/settings/tokens"
                )
            case 403:
                return f"{repo}: the token may not write there (403); use one that may write to {owner}"
            case 404:
                return f"{repo}: not found (404); see that {owner} exists and that the token may read and write there"
            case _:
                return f"{repo}: {self.endpoint} answered {code} ({_reason(error)})"

    def _again(self) -> str:
        request = self.request
        allowed = ["--any-licence"] if request.allowed is None else []
        for name in request.allowed or ():
            allowed += ["--allow-licence", name]
        token = ["--token-file", str(request.token_file)] if request.token_file else []
        flags = [flag for flag, given in (("--public", request.public), ("--dry-run", request.dry_run)) if given]
        return shlex.join(["chimed", "push", str(request.out), "--repo", request.repo, *token, *flags, *allowed])


def _same(item: _Item, entry: Any) -> bool:
    """Whether the Hub has this content: large files by sha256, small ones by git's name."""
    if entry is None:
        return False
    return bool(entry.lfs.sha256 == item.digest if entry.lfs else item.blob and entry.blob_id == item.blob)


def _asked(headers: Mapping[str, str]) -> float | None:
    """The seconds after which the Hub wants to be asked again: by a number, a date, or the rest of its rate's window.

    >>> _asked({"Retry-After": "12"}), _asked({"RateLimit": '"api";r=0;t=55'}), _asked({})
    (12.0, 55.0, None)
    """
    told = headers.get("Retry-After", "").strip()
    window = re.search(r";\s*t\s*=\s*(\d{1,9})", headers.get("RateLimit", ""))
    if re.fullmatch(r"\d{1,9}", told, re.ASCII) or not told:
        return float(told) if told else float(window[1]) if window else None
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def _ours(path: str) -> bool:
    """Whether a build wrote this path: nothing else in the repository is touched."""
    return _OURS.fullmatch(path) is not None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Silences the client: its warnings hold signed addresses, and its bars stand beside ours."""
    logging = hub.utils.logging
    level, bars = logging.get_verbosity(), not hub.utils.are_progress_bars_disabled()
    logging.set_verbosity_error()
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            hub.utils.enable_progress_bars()
