"""`chimed report`, `stats` and `diff` on the embedded sample; the page in a browser, where there is one."""

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--hide-scrollbars"),
]


@pytest.fixture(scope="module")
def out(chimed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    assert chimed("build", "--stage", "all", "--out", folder).returncode == 0
    done = chimed("report", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "report.html")
    return folder


def _browse(page: Path, profile: Path, *options: str) -> tuple[str, str, str]:
    """The page's markup after it ran, the browser's log, and its log of the network."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the report with: install Debian's package chromium")
    net = profile / "net.json"
    own = [f"--user-data-dir={profile / 'profile'}", f"--log-net-log={net}", *options, "--dump-dom", page.as_uri()]
    done = subprocess.run([browser, *FLAGS, *own], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, done.stderr, net.read_text(encoding="utf-8", errors="replace")


def test_page_opens_without_errors_or_requests(out: Path, tmp_path: Path) -> None:
    markup, log, net = _browse(out / "report.html", tmp_path, "--window-size=1280,900")
    assert "CONSOLE" not in log
    # The script ran: the search is there and has counted the rows.
    rows = markup.count("<article ")
    assert rows > 50
    assert re.search(rf'<output id="found">{rows} of {rows} rows</output>', markup)
    assert not _asked(net)


def _asked(net: str) -> list[str]:
    """Addresses that were asked for, but for those that the browser asks its maker for by itself."""
    found = re.findall(r'"url":"((?:https?|wss?)://[^"]*)"', net)
    return [url for url in found if not re.match(r"https?://[a-z0-9.-]+\.(google|googleapis|gvt1|gstatic)\.com/", url)]


def test_markup_in_rows_would_not_run(out: Path, tmp_path: Path) -> None:
    """The policy as a second wall: markup put past the escaping neither runs nor loads, and the log would tell."""
    page = (out / "report.html").read_text(encoding="utf-8")
    planted = (
        '<script>document.title = "taken"</script><img src="http://rows.invalid/x.png" onerror="document.title=1">'
    )
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace("<main>", f"<main>{planted}"), encoding="utf-8")
    markup, log, net = _browse(broken, tmp_path)
    assert "<title>ChiMed: report of a build</title>" in markup
    assert "CONSOLE" in log
    assert not _asked(net)
    open_to_all = tmp_path / "open.html"
    open_to_all.write_text(re.sub(r"<meta http-equiv[^>]*>", "", broken.read_text(encoding="utf-8")), encoding="utf-8")
    markup, _, net = _browse(open_to_all, tmp_path)
    assert "<title>ChiMed" not in markup
    assert "http://rows.invalid/x.png" in _asked(net)


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_page_fits_its_window(out: Path, tmp_path: Path, width: int) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    # In a frame, since no version of the browser opens a window that is as narrow as a phone.
    told = "document.body.dataset.fits = this.contentDocument.documentElement.scrollWidth"
    frame = f'<iframe width="{width}" height="900" style="border:0" onload="{told}" srcdoc="{escape(page)}"></iframe>'
    (measured := tmp_path / "measured.html").write_text(f"<!doctype html><body>{frame}</body>", encoding="utf-8")
    markup, _, _ = _browse(measured, tmp_path, "--window-size=1400,1000")
    found = re.search(r'<body data-fits="(\d+)"', markup)
    assert found
    assert int(found[1]) <= width


def test_page_is_there_in_two_seconds(out: Path, tmp_path: Path) -> None:
    page = re.sub(r"<meta http-equiv[^>]*>", "", (out / "report.html").read_text(encoding="utf-8"))
    told = "<script>onload = () => requestAnimationFrame(() => document.body.dataset.ms = performance.now())</script>"
    (timed := tmp_path / "timed.html").write_text(page.replace("</body>", f"{told}</body>"), encoding="utf-8")
    found = []
    for number in range(3):  # the quickest: what else the machine does is no part of the page
        (profile := tmp_path / str(number)).mkdir()
        found += re.findall(r'<body data-ms="([\d.]+)"', _browse(timed, profile, "--window-size=1280,900")[0])
    assert min(map(float, found)) < 2000


def test_report_tells_what_the_ledger_tells(chimed: Any, out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 5_000_000
    for verdict in ("kept", "rejected", "repeated", "leaked"):
        assert f'data-verdict="{verdict}"' in page
    assert "text not kept" not in page
    unread = [card for card in re.findall(r"<article.*?</article>", page, re.DOTALL) if "no row could be read" in card]
    assert 0 < len(unread) <= 5
    assert all(
        re.search("broken-json|bad-encoding|wrong-column-count|unsafe-path|not-an-object|not-a-row", c) for c in unread
    )
    assert re.search(r"<mark>[^<]+</mark>", page)
    assert "similarity 0.8" in page
    counts = json.loads((out / "sft" / "manifest.json").read_text())["counts"]
    read = sum(own["read"] for files in counts.values() for own in files.values())
    assert f"<b>{read:,}</b>rows read" in page
    # A build goes on in a folder that has a report, and texts are told missing once the work folder is gone.
    assert chimed("build", "--stage", "all", "--out", out).returncode == 0
    without = out.with_name("without")
    shutil.copytree(out, without, ignore=shutil.ignore_patterns(".work"))
    found = json.loads(chimed("report", without, "--json").stdout)
    assert found["bytes"] == (without / "report.html").stat().st_size
    repeated = re.findall(
        r'<article class="is-repeated".*?</article>', (without / "report.html").read_text(), re.DOTALL
    )
    assert all("text not kept" in article for article in repeated)


ODD = "<script>alert(1)</script> ![x](http://rows.invalid/y) ---\\n# Kopf \\u001b[31m\\u202e"


def test_rejected_rows_are_shown_masked_and_cut(chimed: Any, tmp_path: Path) -> None:
    """Rejects of the parser and of the judge, in the order of the ledger: two of a reason, whatever there are."""
    (tmp_path / "raw" / "ward").mkdir(parents=True)
    asked = [f"{ODD} 我的电话13912345678，第{n}次来问，血压高怎么办？" for n in range(400)]
    rows = [f'{{"q": "{text}", "a": ""}}' for text in asked[:200]]
    rows += [f'{{"q": "{text}", "a": "谢谢。"}}' for text in asked[200:300]]
    rows += [json.dumps({"q": "长" * 1_000_000, "a": "？" * 1_000_000}), '{"q": "坏行']
    rows += [
        json.dumps({"q": f"第{n}天血压还是高，要换药吗？", "a": f"先量{n}天血压，记下来再来。"}) for n in range(900)
    ]
    (tmp_path / "raw" / "ward" / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    block = "{name: ward, shape: dialogue, files: {'*': train}, columns: {question: q, answer: a}, max_rejects: 1}"
    (recipe := tmp_path / "recipe.yaml").write_text(f"sources:\n  - {block}\n")
    out = tmp_path / "out"
    done = chimed("build", "--stage", "sft", "--recipe", recipe, "--raw", tmp_path / "raw", "--out", out)
    assert done.returncode == 0, done.stderr
    assert chimed("report", out).returncode == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    cards = re.findall(r'<article class="is-rejected".*?</article>', page, re.DOTALL)
    shown = {found[1]: card for card in cards if (found := re.search(r"<bdi>ward/train\.jsonl#(\d+)</bdi>", card))}
    assert {"1", "2", "302"} <= shown.keys()
    assert "no row could be read here" in shown["302"]
    assert "13912345678" not in page
    first = shown["1"]
    assert "q: ![x]([网址]) ---" in first  # as the steps before the judge leave it: no tags, no addresses
    assert "第0次来问" in first
    assert not set("\x1b\u202e") & set(page)
    assert sum("谢谢。" in card for card in cards) == 2
    assert len(page.encode()) < 200_000


def test_stats_prints_tables_that_fit(chimed: Any, out: Path) -> None:
    done = chimed("stats", out)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads(chimed("stats", out / "sft", "--json").stdout)
    (stage,) = found["stages"]
    assert stage["stage"] == "sft"
    manifest = json.loads((out / "sft" / "manifest.json").read_text())
    assert stage["rows"] == sum(manifest["rows"].values()) == sum(row["rows"] for row in stage["sources"])
    assert abs(sum(row["share"] for row in stage["sources"]) - 1) < 1e-4


def test_diff_finds_what_another_threshold_keeps(chimed: Any, out: Path, tmp_path: Path) -> None:
    from importlib.resources import files

    recipe = tmp_path / "recipe.yaml"
    text = files("chimed").joinpath("chimed.yaml").read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"(?m)^near: .*$", "near: 0.95", text), encoding="utf-8")
    other = tmp_path / "other"
    assert chimed("build", "--stage", "cpt", "--recipe", recipe, "--out", other).returncode == 0
    found = json.loads(chimed("diff", out, other, "--json").stdout)
    assert {"key": "near", "before": 0.8, "after": 0.95} in found["recipe"]
    assert found["kept"]["in"] >= 2
    assert found["kept"]["out"] == 0
    assert {(move["before"], move["after"]) for move in found["moves"]} == {("repeated", "kept")}
    done = chimed("diff", out, other)
    assert done.returncode == 0, done.stderr
    assert "repeated -> kept" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "No row has another verdict" in chimed("diff", out, out).stdout
