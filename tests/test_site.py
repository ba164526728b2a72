"""The documentation is one site: it builds in strict mode, and every link on it leads to something that is on it."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="needs the dev extra: pip install -e '.[dev]'")

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = re.compile(r'(?:href|src)="([^"]+)"')
LOADED = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?://[^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `mkdocs build --strict` makes it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> list[tuple[Path, str]]:
    """The pages of the site with their HTML; 404.html, whose links start at the root of a server, is none."""
    found = sorted(page for page in site.rglob("*.html") if page.name != "404.html")
    return [(page, page.read_text(encoding="utf-8")) for page in found]


def test_every_page_of_the_documentation_is_on_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert (site / ("" if name == "index" else name) / "index.html").is_file(), name


def test_links_lead_to_files_of_the_site(site: Path) -> None:
    for page, html in pages(site):
        for link in REFERENCE.findall(html):
            parts = urlsplit(link)
            if not parts.scheme and parts.path:
                goal = page.parent / unquote(parts.path)
                assert goal.is_file() or (goal / "index.html").is_file(), f"{page.relative_to(site)}: {link}"


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    found = {f"{page.relative_to(site)}: {address}" for page, html in pages(site) for address in LOADED.findall(html)}
    assert not found
