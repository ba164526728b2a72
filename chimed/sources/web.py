"""HTTP for downloads, on the standard library: proxies of the environment, HF_ENDPOINT, HF_TOKEN, safe redirects.

Only http and https are spoken. The token goes to the host of HF_ENDPOINT and to no other, redirects included; it stands
in no message.
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage, HTTPResponse
from typing import IO, cast
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from chimed.errors import SourceError
from chimed.sources.origins import HUB

_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sends, and the sha256 that the Hub names for a large file when it redirects to it, or ""."""

    response: HTTPResponse
    linked: str


class Web:
    """A client that asks `endpoint` for what lies on the Hub, with `token`.

    >>> Web("https://mirror.example/hf/").address("https://huggingface.co/datasets/a/b/resolve/main/c.json")
    'https://mirror.example/hf/datasets/a/b/resolve/main/c.json'
    """

    def __init__(self, endpoint: str = HUB, token: str = "") -> None:
        self.endpoint = _checked(endpoint)
        self._token = token
        if not token.isascii() or not token.isprintable() or " " in token:
            raise SourceError("HF_TOKEN: holds a character that no token has; copy it again from the Hub's settings")
        self._redirects = _Redirects(self)
        self._opener = OpenerDirector()
        self._opener.addheaders = [("User-Agent", "chimed")]
        # Not `build_opener`, which would also speak file:, ftp: and data:.
        for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler(), UnknownHandler(), HTTPDefaultErrorHandler()):
            self._opener.add_handler(handler)
        self._opener.add_handler(self._redirects)
        self._opener.add_handler(HTTPErrorProcessor())

    @classmethod
    def of_environment(cls) -> "Web":
        """The client that HF_ENDPOINT and HF_TOKEN ask for."""
        return cls(os.environ.get("HF_ENDPOINT", "").strip() or HUB, os.environ.get("HF_TOKEN", "").strip())

    def address(self, url: str) -> str:
        """The address that is asked for a published one. Raises SourceError unless it is http or https."""
        return self.endpoint + url.removeprefix(HUB) if url.startswith(f"{HUB}/") else _checked(url)

    def is_endpoint(self, address: str) -> bool:
        """Whether an address is on the host that HF_ENDPOINT names."""
        return urlsplit(address)[:2] == urlsplit(self.endpoint)[:2]

    def open(self, address: str, headers: Mapping[str, str]) -> Answer:
        """Asks for a file; the caller closes the response. Raises what urllib and http.client raise, or SourceError
        for a redirect that is not followed."""
        request = Request(address, headers=dict(headers))
        self.authorize(request)
        self._redirects.linked = ""
        try:
            response = cast(HTTPResponse, self._opener.open(request, timeout=_TIMEOUT))
        except SourceError:
            raise
        except ValueError:
            raise SourceError(f"{address}: redirects to an address that is none") from None
        return Answer(response, self._redirects.linked)

    def authorize(self, request: Request) -> None:
        """Puts the token on a request to the endpoint's host, so that no redirect carries it elsewhere."""
        if self._token and self.is_endpoint(request.full_url):
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")


class _Redirects(HTTPRedirectHandler):
    """Follows redirects within http and https, never from https to http."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.linked = ""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if _scheme(newurl) not in {_scheme(req.full_url), "https"}:
            raise SourceError(f"{req.full_url}: redirects to {_scheme(newurl)!r}, which is not followed")
        self.linked = headers.get("X-Linked-Etag", self.linked).strip('"')
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            self.web.authorize(request)
        return request


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return "an address that is none"


def _checked(url: str) -> str:
    """An address without a slash at its end. Raises SourceError unless it is http or https with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.username is None and url.isprintable()
    except ValueError:
        usable = False
    if not usable:
        shown = url.rpartition("@")[2]  # never a password
        raise SourceError(f"{shown!r}: not an address to fetch from; allowed are http://host/… and https://host/…")
    return url.rstrip("/")


def retry_after(headers: Message) -> float | None:
    """The seconds that a server asks to wait, or None where it asks for nothing that can be read.

    >>> message = Message()
    >>> message["Retry-After"] = "3"
    >>> retry_after(message)
    3.0
    """
    value = str(headers.get("Retry-After", "")).strip()
    if value.isascii() and value.isdigit():
        return float(value[:6])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def reason(error: Exception) -> str:
    """Why a connection failed, in a few words. Raises SourceError for what no second attempt can mend."""
    inner = error.reason if isinstance(error, URLError) else error
    if isinstance(inner, ssl.SSLCertVerificationError):
        raise SourceError(
            f"the server's certificate cannot be verified ({inner.verify_message}); set SSL_CERT_FILE to the "
            "certificates of your network"
        ) from None
    return str(inner) or type(inner).__name__
