"""The documents say what is there: commands, options, links, sources and examples."""

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import typer

from chimed import cli as chimed_cli
from chimed.quality import REASONS
from chimed.reasons import PARSING, READING
from chimed.recipe import load_recipe
from chimed.sources import discover
from qilin import cli as qilin_cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fences(page: Path, language: str) -> list[str]:
    return [code for name, code in FENCE.findall(text(page)) if name == language]


def code_lines(page: Path) -> list[str]:
    """Every line of code on a page, shell lines that end in a backslash joined."""
    blocks = [code.replace("\\\n", " ") for name, code in FENCE.findall(text(page)) if name in ("", "bash", "console")]
    return [line for block in blocks for line in block.splitlines()] + SPAN.findall(FENCE.sub("", text(page)))


@cache
def help_of(program: str, command: str = "") -> str:
    code = f"from {program}.cli import main; main()"
    arguments = [sys.executable, "-c", code, *([command] if command else []), "--help"]
    wide = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(arguments, capture_output=True, text=True, check=True, env=wide).stdout


def commands(program: str) -> set[str]:
    _, _, listed = help_of(program).partition("Commands")
    return set(re.findall(r"^\W*([a-z]+)\s", listed, re.MULTILINE))


@EACH_PAGE
def test_commands_and_options_exist(page: Path) -> None:
    for line in code_lines(page):
        for program, command, rest in re.findall(r"(?:^|[\s/])(chimed|qilin) ([a-z]+)\b([^&|;]*)", line):
            assert command in commands(program), f"{line!r}: {program} has no command {command}"
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
                assert option in help_of(program, command), f"{line!r}: {program} {command} has no option {option}"


@EACH_PAGE
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE))
    named = {name for line in code_lines(page) for name in re.findall(r"(?:^|\s)make ([a-z-]+)", line)}
    assert named <= targets


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@EACH_PAGE
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", text(page))):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        goal = (page.parent / target).resolve() if target else page
        assert goal.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(goal), f"{link}: no such heading"


def source_table() -> str:
    """The table of docs/sources.md, made from the first sentence of each source's file."""
    files = {
        importlib.import_module(f"chimed.sources.{path.stem}") for path in (ROOT / "chimed/sources").glob("[a-z]*.py")
    }
    docs = {module.SOURCE.name: str(module.__doc__).strip() for module in files if hasattr(module, "SOURCE")}
    lines = ["| source | what | shapes | stages | licence |", "|---|---|---|---|---|"]
    for name, source in discover().items():
        what = re.split(r"\.(?:\s|$)", " ".join(docs[name].split()), maxsplit=1)[0]
        named = f"[`{name}`]({source.homepage})" if source.homepage else f"`{name}`"
        licence = source.license.replace("unknown", "none stated")
        lines.append(f"| {named} | {what} | {', '.join(source.shapes)} | {' '.join(source.stages)} | {licence} |")
    return "\n".join(lines)


def test_the_page_of_sources_lists_every_source() -> None:
    page = ROOT / "docs" / "sources.md"
    found = re.search(r"^\| source \| what.*?(?=\n\n)", text(page), re.MULTILINE | re.DOTALL)
    assert found
    if os.environ.get("UPDATE_GOLDEN"):
        page.write_text(text(page).replace(found[0], source_table()), encoding="utf-8")
    else:
        assert found[0] == source_table(), "run `make golden`"


def reasons_table() -> str:
    """The table of docs/errors.md: every reason of a reject, by who gives it."""
    told = {"reader": READING, "parser": PARSING, "verdict": REASONS}
    lines = [f"| `{reason}` | {who} | {words} |" for who, own in told.items() for reason, words in own.items()]
    return "\n".join(["| reason | given by | meaning |", "|---|---|---|", *lines])


def test_golden_table_of_reasons() -> None:
    page = ROOT / "docs" / "errors.md"
    found = re.search(r"^\| reason \| given by.*?(?=\n\n|\n?\Z)", text(page), re.MULTILINE | re.DOTALL)
    assert found
    if os.environ.get("UPDATE_GOLDEN"):
        page.write_text(text(page).replace(found[0], reasons_table()), encoding="utf-8")
    else:
        assert found[0] == reasons_table(), "run `make golden`"


PLACES = {Path: "PATH", int: "INTEGER", float: "NUMBER", str: "TEXT"}  # what stands where a value is to be put


class Parameter(NamedTuple):
    """An argument or option as docs/commands.md shows it: how it is written, what it is, and its default."""

    written: str
    what: str
    default: str
    is_argument: bool


def plain(hint: Any) -> type:
    """The type of one value: `int` of `list[int] | None`."""
    inner = [part for part in get_args(hint) if part is not type(None)]
    return plain(inner[0]) if inner else hint


def parameter(own: Any, hint: Any) -> Parameter:
    """What a program says of one of its arguments or options."""
    kind, said = plain(hint), hint.__metadata__[0]  # of Annotated[kind, typer.Option(...)]
    what, _, default = (own.help or "").rstrip(".").partition("; default: ")
    place = "" if kind is bool else own.metavar or PLACES.get(kind, own.name.upper())
    if issubclass(kind, Enum):
        what += f" (one of {', '.join(f'`{member.value}`' for member in kind)})"
    elif said.max is not None:
        what += f" ({said.min} to {said.max})"
    elif said.min:
        what += f" (at least {said.min})"
    if own.required:
        default = "required"
    elif not default and own.default != "" and own.default is not None and own.default is not False:
        default = f"`{getattr(own.default, 'value', own.default)}`"
    is_argument = own.param_type_name == "argument"
    return Parameter(place if is_argument else f"{own.opts[0]} {place}".rstrip(), what, default, is_argument)


def usage(command: str, parameters: list[Parameter]) -> str:
    """How a command is called: its arguments, then the options that it cannot do without."""
    arguments = [own.written if own.default else f"[{own.written}]" for own in parameters if own.is_argument]
    options = [own for own in parameters if not own.is_argument]
    needed = [own.written for own in options if own.default == "required"]
    return " ".join([command, *arguments, *needed, *(["[OPTIONS]"] if len(options) > len(needed) else [])])


def reference(program: str, app: typer.Typer) -> Iterator[str]:
    """The lines of docs/commands.md on a program: every command with its arguments and options."""
    tree: Any = typer.main.get_command(app)
    yield from [f"## {program}", "", tree.help, "", "| command | what it does |", "|---|---|"]
    for name, command in tree.commands.items():
        yield f"| [{name}](#{program}-{name}) | {command.help} |"
    for name, command in tree.commands.items():
        hints = get_type_hints(command.callback, include_extras=True)
        found = [parameter(own, hints[own.name]) for own in command.params]
        found.sort(key=lambda own: not own.is_argument)
        yield from ["", f"### {program} {name}", "", command.help, "", "```text", usage(f"{program} {name}", found)]
        yield from ["```", "", "| argument or option | what it is | default |", "|---|---|---|"]
        yield from (f"| `{own.written}` | {own.what} | {own.default} |".replace("  |", " |") for own in found)


def test_golden_page_of_commands() -> None:
    page = ROOT / "docs" / "commands.md"
    before, mark, _ = text(page).partition("## chimed\n")
    assert mark
    programs = {"chimed": chimed_cli.app, "qilin": qilin_cli.app}
    made = before + "\n\n".join("\n".join(reference(name, app)) for name, app in programs.items()) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        page.write_text(made, encoding="utf-8")
    else:
        assert made == text(page), "run `make golden`"


def test_the_design_names_every_module() -> None:
    for package in ("chimed", "qilin"):
        _, _, listed = text(ROOT / "docs" / "design.md").partition(f"\n`{package}`, ")
        listed = listed[: listed.index("\n\n", listed.index("|---|"))]
        named = {name.rstrip("/") for name in re.findall(r"`([a-z/]+)`", listed)}
        there = {path.stem for path in (ROOT / package).glob("[a-z]*.py")}
        there |= {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert named == there, "the tables of docs/design.md"


def test_readme_lists_every_command() -> None:
    assert set(re.findall(r"^\| `chimed ([a-z]+)\b[^`]*` \|", text(ROOT / "README.md"), re.MULTILINE)) == commands(
        "chimed"
    )


def test_the_set_up_commands_of_the_readme_are_what_ci_runs() -> None:
    first, second, *_ = (code.strip() for code in fences(ROOT / "README.md", "bash"))
    script = text(ROOT / ".ci" / "run")
    assert f"\n{first}\n" in script
    assert first in text(ROOT / "docs" / "quickstart.md")
    assert second == "make test"
    assert second in script


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the sample corpus was built into `out`, as the README does."""
    folder = tmp_path_factory.mktemp("docs")
    code = "from chimed.cli import main; main()"
    command = [sys.executable, "-c", code, "build", "--stage", "all", "--out", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


RUN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}:{number}")
    for page in RUN
    for number, code in enumerate(fences(page, "python"), 1)
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_run(code: str, built: Path) -> None:
    away = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(built / "cache"), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=built, capture_output=True, text=True, check=False, env=away
    )
    assert done.returncode == 0, done.stderr


FETCHED = {"test_fetch.py"}  # holds for every source that it can be fetched, or says where to get it


def test_a_source_is_one_file_and_a_few_rows(tmp_path: Path) -> None:
    """The steps of docs/add-a-source.md, word for word, on a copy of what they touch."""
    guide = ROOT / "docs" / "add-a-source.md"
    shutil.copytree(ROOT / "chimed", tmp_path / "chimed", ignore=shutil.ignore_patterns("__pycache__"))
    golden = tmp_path / "tests" / "golden"
    (golden / "clinic-qa").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "golden" / "test_golden.py", golden)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "chimed" / "sources" / "clinic_qa.py").write_text(fences(guide, "python")[0], encoding="utf-8")
    (golden / "clinic-qa" / "train.csv").write_text(fences(guide, "csv")[0], encoding="utf-8")
    shutil.copytree(ROOT / "tests" / "unit", tmp_path / "tests" / "unit", ignore=lambda _, names: {*names} - FETCHED)
    for update in ("1", ""):
        there = {**os.environ, "PYTHONPATH": str(tmp_path), "UPDATE_GOLDEN": update}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=there)
        assert done.returncode == 0, done.stdout
    expected = [json.loads(line) for line in text(golden / "clinic-qa" / "expected.jsonl").splitlines()]
    assert [line["key"] for line in expected] == ["train.csv#1", "train.csv#2"]
    assert expected[0]["department"] == "内科"
    assert expected[1]["reject"] == "no-answer"


def test_the_recipe_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = ROOT / "docs" / "add-a-source.md"
    (recipe := tmp_path / "recipe.yaml").write_text(fences(guide, "yaml")[0], encoding="utf-8")
    assert [item.source.name for item in load_recipe(recipe).ingredients] == ["clinic-qa"]
    (tmp_path / "raw" / "clinic-qa").mkdir(parents=True)
    rows = fences(guide, "csv")[0]
    (tmp_path / "raw" / "clinic-qa" / "train.csv").write_text(rows, encoding="utf-8")
    options = ["--stage", "sft", "--raw", "raw", "--recipe", "recipe.yaml", "--out", "out"]
    command = [sys.executable, "-c", "from chimed.cli import main; main()", "build", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Built 1 rows: sft" in done.stdout


LADDER, ABLATIONS = ("table", "tables", "ladder"), ("ablations", "table", "ablations")


@pytest.mark.parametrize(
    ("page", "maker"), [("README.md", LADDER), ("docs/ladder.md", LADDER), ("docs/ladder.md", ABLATIONS)]
)
def test_golden_tables_of_the_ladder(page: str, maker: tuple[str, str, str]) -> None:
    """The tables are what a script makes of the figures that a run left: script, function, figures."""
    pytest.importorskip("lm_eval", reason="needs the eval extra: pip install -e '.[eval]'")
    script, function, figures = maker
    spec = importlib.util.spec_from_file_location(script, ROOT / "recipes" / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = getattr(module, function)(json.loads(text(ROOT / "docs" / f"{figures}.json")))
    begin, end = f"<!-- recipes/{script}.py, docs/{figures}.json -->\n", "\n<!-- end -->"
    before, mark, rest = text(ROOT / page).partition(begin)
    now, closing, after = rest.partition(end)
    assert mark
    assert closing
    if os.environ.get("UPDATE_GOLDEN"):
        (ROOT / page).write_text(before + mark + made + closing + after, encoding="utf-8")
    else:
        assert now == made, "run `make golden`"
