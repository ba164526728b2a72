"""Pages link to files beside docs/, as they do on GitHub: what they link to becomes part of the site."""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=[)#])")


def in_repository(uri: str) -> str:
    """Where the file of the site lies in the repository: below docs/, or else where the site has it."""
    return f"docs/{uri}" if (ROOT / "docs" / uri).exists() else uri


def target(uri: str, link: str) -> str:
    """The file of the site that a link of this page means; instead of the README the site has a front page."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository(uri)), link))
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def links(uri: str) -> Iterator[str]:
    """The files of the site that a page links to."""
    if uri.endswith(".md"):
        for part in FENCE.split((ROOT / in_repository(uri)).read_text(encoding="utf-8"))[::2]:
            yield from (target(uri, link) for link in LINK.findall(part))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files beside docs/ that pages link to, and those that these link to."""
    waiting = [file.src_uri for file in files]
    while waiting:
        for uri in links(waiting.pop()):
            if files.get_file_from_path(uri) is None and (ROOT / uri).is_file():
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))
                waiting.append(uri)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they are in the site, where docs/ is the root."""
    uri = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        return posixpath.relpath(target(uri, link[1]), posixpath.dirname(uri) or ".")

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)
