"""One file on its way to disk: into a part that a later attempt, or a later run, goes on with.

What is known of the files of a folder stands in `.fetched.json`; parts are called `.<name>.part`. Both are hidden, so
that no build reads them.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from chimed.errors import SourceError
from chimed.sources.origins import Remote
from chimed.sources.spec import Source
from chimed.sources.web import Answer, Web, reason, retry_after

Step = Callable[[str, int], Callable[[int], None]]

RECORD = ".fetched.json"
_CHUNK = 1 << 18
_FRUITLESS = 6  # attempts in a row that brought the file no further
_ATTEMPTS = 60  # attempts a file in all, so that a line that is cut again and again ends too
_LONGEST_WAIT = 120.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file of a source goes."""

    source: Source
    remote: Remote
    folder: Path
    target: Path

    @property
    def part(self) -> Path:
        return self.target.with_name(f".{self.target.name}.part")

    def recorded(self) -> dict[str, Any]:
        """What an earlier run wrote down about this file."""
        entry = _record(self.folder).get(self.remote.path)
        return entry if isinstance(entry, dict) else {}

    def write_down(self, entry: dict[str, Any] | None) -> None:
        """Writes down what is known of this file, or forgets it."""
        record = _record(self.folder)
        record.pop(self.remote.path, None)
        if entry is not None:
            record[self.remote.path] = entry
        with disk(self.folder / RECORD):
            unfinished = self.folder / f"{RECORD}.part"
            unfinished.write_text(json.dumps(record, ensure_ascii=False, indent=1, sort_keys=True), encoding="utf-8")
            unfinished.replace(self.folder / RECORD)


class _CutError(Exception):
    """The line or the server failed in a way that may pass; `wait` is what the server asks for, in seconds."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(why)


class Transfer:
    """One file on its way into its part.

    address: what is asked.  validator: what the server names this version of the file by, "" if by nothing.
    linked: the sha256 that the Hub names.  date: of the server.
    """

    def __init__(self, web: Web, place: Place, step: Step) -> None:
        self.web, self.place = web, place
        self.address = web.address(place.remote.url)
        self.linked = self.date = ""
        known = place.recorded()
        unfinished = known.get("unfinished") and known.get("address") == self.address
        self.validator = str(known.get("etag", "")) if unfinished and place.part.is_file() else ""
        self._step = step
        self._advance: Callable[[int], None] | None = None
        self._shown = 0

    def run(self, sleep: Callable[[float], None]) -> None:
        """Fills the part. Raises SourceError once `_FRUITLESS` attempts in a row, or `_ATTEMPTS` in all, were cut."""
        fruitless = furthest = attempts = 0
        why = ""
        while fruitless < _FRUITLESS and attempts < _ATTEMPTS:
            attempts += 1
            try:
                self._attempt()
                return
            except _CutError as cut:
                why = str(cut)
                held = self._held()
                fruitless = 0 if held > furthest else fruitless + 1
                furthest = max(furthest, held)
                if fruitless < _FRUITLESS:
                    sleep(min(2.0**fruitless if cut.wait is None else cut.wait, _LONGEST_WAIT))
        raise SourceError(
            f"{self.address}: gave up after {attempts} attempts: {why}; the same command goes on from here "
            f"({self._held():,} bytes are there)"
        )

    def _held(self) -> int:
        return self.place.part.stat().st_size if self.place.part.is_file() else 0

    def _attempt(self) -> None:
        have = self._held() if self.validator else 0
        answer = self._ask({"Range": f"bytes={have}-", "If-Range": self.validator} if have else {}, have)
        if answer is None:
            return
        with answer.response as response:
            headers = response.headers
            if response.status == 206 and not self._continues(
                headers.get("Content-Range", ""), _validator(headers), have
            ):
                self.validator = ""
                raise _CutError("the server sent another part of the file than was asked for", 0.0)
            have = have if response.status == 206 else 0
            if headers.get_content_type() == "text/html" and not self.place.target.suffix.startswith(".htm"):
                raise SourceError(f"{self.address}: answers with a web page instead of the file; {self._by_hand()}")
            self.validator, self.date = _validator(headers), headers.get("Date", "")
            self.linked = answer.linked if _SHA256.fullmatch(answer.linked) else ""
            length = headers.get("Content-Length", "")
            total = have + int(length) if length.isascii() and length.isdigit() else None
            if not have:
                self._begin()
            self._receive(answer, have, total)

    def _begin(self) -> None:
        """Starts the part, and writes down which version of the file it belongs to."""
        with disk(self.place.part):
            self.place.part.write_bytes(b"")
        note = {"unfinished": True, "url": self.place.remote.url, "address": self.address, "etag": self.validator}
        self.place.write_down(note)

    def _continues(self, content_range: str, validator: str, have: int) -> bool:
        start = _RANGE.match(content_range)
        return have > 0 and start is not None and int(start[1]) == have and validator in {"", self.validator}

    def _receive(self, answer: Answer, have: int, total: int | None) -> None:
        self._show(have, total)
        with disk(self.place.part), self.place.part.open("ab") as part:
            while chunk := _read(answer):
                part.write(chunk)
                have += len(chunk)
                self._show(have, total)
        if total is not None and have != total:
            raise _CutError(f"cut off after {have:,} of {total:,} bytes")
        if self._held() != have:
            raise SourceError(f"{self.place.part}: something else writes to it; let the other chimed fetch end first")

    def _show(self, have: int, total: int | None) -> None:
        if self._advance is None:
            self._advance = self._step(f"{self.place.source.name}/{self.place.target.name}", total or 0)
        self._advance(have - self._shown)
        self._shown = have

    def _ask(self, headers: dict[str, str], have: int) -> Answer | None:
        """The server's answer, or None when it has no more than what is held."""
        try:
            return self.web.open(self.address, headers)
        except HTTPError as error:
            with error:
                if error.code == 416 and have and error.headers.get("Content-Range", "") == f"bytes */{have}":
                    return None
                raise self._refusal(error) from None
        except (OSError, HTTPException) as error:
            raise _CutError(self._reason(error)) from None

    def _reason(self, error: Exception) -> str:
        try:
            return reason(error)
        except SourceError as fault:
            raise SourceError(f"{self.address}: {fault}") from None

    def _refusal(self, error: HTTPError) -> Exception:
        code = error.code
        if code == 416 and self.validator:
            self.validator = ""
            return _CutError("the server does not know the rest of the file", 0.0)
        elsewhere = code in {401, 403} and self.web.is_endpoint(self.address) and not self.web.is_endpoint(error.url)
        if code in _AGAIN or elsewhere:  # the Hub redirects to addresses that hold for a while only
            return _CutError(f"the server answered {code}", retry_after(error.headers))
        if code in {401, 403} and self.web.is_endpoint(self.address):
            page = self.address.partition("/resolve/")[0]
            return SourceError(
                f"{self.address}: is not given to everyone ({code}); accept its terms at {page} and set HF_TOKEN to a "
                "token of your account"
            )
        if code in {404, 410}:
            return SourceError(f"{self.address}: upstream has moved or removed it ({code}); {self._by_hand()}")
        if 300 <= code < 400:
            return SourceError(f"{self.address}: redirects in a circle or to what is not http or https ({code})")
        return SourceError(f"{self.address}: the server answered {code}; {self._by_hand()}")

    def _by_hand(self) -> str:
        return f"look for it at {self.place.source.homepage} and put it at {self.place.target}"


def _read(answer: Answer) -> bytes:
    try:
        return answer.response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _CutError(reason(error)) from None


def _validator(headers: Any) -> str:
    """What a range request can name this version of the file by: a strong ETag, else its date, else nothing."""
    etag = str(headers.get("ETag", ""))
    return etag if etag.startswith('"') else str(headers.get("Last-Modified", ""))


def _record(folder: Path) -> dict[str, Any]:
    """What was written down about the files of a folder; nothing when it cannot be read: it only saves work."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """What the disk refuses, as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SourceError(
                f"{path}: the disk is full; free some room, and the same command goes on from here"
            ) from None
        raise SourceError(f"{path}: cannot be written: {os.strerror(error.errno) if error.errno else error}") from None
