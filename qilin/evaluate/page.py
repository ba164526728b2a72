"""The report of an evaluation as one HTML page that loads nothing: style and plots stand in it, scripts there are none.

Its content policy allows the style by its hash, pictures that are in the page, and nothing else.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from qilin.evaluate.answers import MODES
from qilin.evaluate.report import PUBLISHED, WARNING, Row, Table, name, notes, share, tables

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c1f23;--quiet:#5b636d;--line:#d9dde2;--panel:#f6f7f9;--mark:#2b6cb0;
--warn:#fff4e0;--warn-line:#e0a526}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e7eb;--quiet:#9aa4b0;--line:#333a43;--panel:#1b2026;
--mark:#6aa9e9;--warn:#2b2413;--warn-line:#a87b1c}figure img{filter:invert(.92) hue-rotate(180deg)}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:1.5rem 1.25rem 3rem;background:var(--paper);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","PingFang SC","Hiragino Sans GB","Microsoft YaHei",
"Noto Sans CJK SC","Source Han Sans SC","WenQuanYi Micro Hei",sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0 .6rem;overflow-wrap:anywhere}
h2,summary{font-size:1.1rem;font-weight:600}
h2{margin:0 0 .3rem}
section,details{margin-top:1.8rem;padding-top:.8rem;border-top:1px solid var(--line)}
summary{cursor:pointer;color:var(--mark)}
p{margin:.3rem 0 .8rem;max-width:75ch}
section p,details p,footer{color:var(--quiet);font-size:.9rem}
.warning{background:var(--warn);border-left:4px solid var(--warn-line);border-radius:4px;padding:.5rem .8rem}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:.9rem 0;padding:0;list-style:none}
.tiles li{flex:1 1 9rem;max-width:16rem;padding:.5rem .75rem;border:1px solid var(--line);border-radius:6px;
background:var(--panel);font-size:.82rem;color:var(--quiet)}
.tiles b{display:block;font-size:1.35rem;line-height:1.3;color:var(--ink);font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
table{border-collapse:collapse;min-width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top;white-space:nowrap}
th{font-weight:600;font-size:.8rem;color:var(--quiet);border-bottom:1px solid var(--line);vertical-align:bottom}
td{border-bottom:1px solid var(--line)}
th.figure,td.figure{text-align:right}
td:first-child,th:first-child{white-space:normal;min-width:7rem;max-width:20rem;overflow-wrap:anywhere}
tr.published td{color:var(--quiet);font-style:italic;background:var(--panel)}
figure{margin:.6rem 0 1rem}
figure img{display:block;width:100%;max-width:900px;height:auto}
footer{margin-top:2.2rem;padding-top:.8rem;border-top:1px solid var(--line)}
footer p{max-width:none;overflow-wrap:anywhere}
@media (max-width:600px){body{padding:1rem .8rem 2rem}h1{font-size:1.35rem}table{font-size:.8rem}
th{white-space:normal;min-width:4.2rem}
td:first-child,th:first-child{min-width:5.2rem}.tiles li{flex-basis:40%}
figure{overflow-x:auto}figure img{min-width:560px}}
@media print{details>*{display:block}.wide{overflow:visible}td,th{white-space:normal}}
"""


def html(result: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    """The report as HTML, with the plots in it. All that comes from data or a model is text, never markup."""
    title = escape(name(result))
    hashed = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{hashed}'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}: evaluation</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f'<header>\n<h1>{title}</h1>\n<p class="warning">{escape(WARNING)}</p>',
            f"{_tiles(result)}\n</header>\n<main>",
            *(_section(table, plots) for table in tables(result)),
            "</main>\n<footer>",
            *(f"<p>{escape(note)}</p>" for note in notes(result)),
            "</footer>\n</body>\n</html>\n",
        ]
    )


def _tiles(result: Mapping[str, Any]) -> str:
    """The accuracy of each arm over each exam by the first method, and ROUGE-1 over each open set, in large figures."""
    tiles = (f"<li><b>{escape(value)}</b>{escape(what)}</li>" for value, what in _first(result))
    return f'<ul class="tiles">{"".join(tiles)}</ul>'


def _first(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for set_, arms in result.get("exam", {}).items():
        for arm, methods in arms.items():
            method, scores = next(iter(methods.items()))
            value, _, spread = share(scores["accuracy"]).partition(" ")
            yield f"{value} %", f"{set_}, {arm}, {method}: accuracy {spread} on {scores['n']:,} items"
    for set_, arms in result.get("open", {}).items():
        for arm, modes in arms.items():
            mode, scores = next((mode, own) for mode, own in modes.items() if mode in MODES)
            yield f"{scores['values']['rouge-1']:.1f}", f"{set_}, {arm}: ROUGE-1 ({mode}) on {scores['n']:,} items"


def _section(table: Table, plots: Mapping[str, bytes]) -> str:
    figures = [all(_number(row[place]) for row in table.rows) for place in range(len(table.head))]
    head = "".join(_named("th", cell, figure) for cell, figure in zip(table.head, figures, strict=True))
    body = "\n".join(_row(row, figures) for row in table.rows)
    grid = f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
    note = f"<p>{escape(table.note)}</p>\n" if table.note else ""
    picture = ""
    if data := plots.get(table.plot):
        source = base64.b64encode(data).decode()
        picture = f'<figure><img alt="{escape(table.title)}" src="data:image/png;base64,{source}"></figure>\n'
    if table.minor:
        return f"<details>\n<summary>{escape(table.title)}</summary>\n{note}{picture}{grid}\n</details>"
    return f"<section>\n<h2>{escape(table.title)}</h2>\n{note}{picture}{grid}\n</section>"


def _row(cells: Row, figures: list[bool]) -> str:
    kind = ' class="published"' if PUBLISHED in cells else ""
    return f"<tr{kind}>{''.join(_named('td', cell, figure) for cell, figure in zip(cells, figures, strict=True))}</tr>"


def _named(tag: str, cell: str, figure: bool) -> str:
    kind = ' class="figure"' if figure else ""
    return f"<{tag}{kind}>{escape(cell)}</{tag}>"


def _number(cell: str) -> bool:
    return not cell.strip("–< ") or cell.strip("–< ")[0].isdigit()
