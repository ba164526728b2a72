"""The budgets and the import contracts: what keeps the house small."""

import ast
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("chimed", "qilin")
CODE = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = ("tests", "benchmarks", "recipes")
FILES = CODE + sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
HELP = "import sys; sys.argv = ['chimed', '--help']; from chimed.cli import main; main()"
HEAVY = {"pyarrow", "numba", "pandas", "datasets", "torch", "transformers", "ray", "opencc", "openpyxl"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def lines(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: Function) -> int:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    starred = [arg for arg in (node.args.vararg, node.args.kwarg) if arg]
    return len([arg for arg in named + starred if arg.arg not in ("self", "cls")])


def is_command(node: Function) -> bool:
    """Whether it is a command of the command line: its parameters are the options a user types, read by name."""
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_files_are_short() -> None:
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text("utf-8").splitlines())) > 400}
    assert not long, "a file has at most 400 lines"


def test_functions_are_short() -> None:
    long = {name: lines(node) for path in FILES for name, node in functions(path) if lines(node) > 60}
    assert not long, "a function has at most 60 lines"


def test_most_functions_fit_a_screen() -> None:
    lengths = sorted(lines(node) for path in CODE for _, node in functions(path))
    assert lengths[int(len(lengths) * 0.9)] <= 35, "nine functions of ten have at most 35 lines"


def test_functions_take_few_parameters() -> None:
    wide = {
        name: parameters(node)
        for path in FILES
        for name, node in functions(path)
        if parameters(node) > 6 and not is_command(node)
    }
    assert not wide, "a function takes at most 6 parameters"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_offer_few_names(package: str) -> None:
    names = import_module(package).__all__
    assert len(names) <= 15
    assert sorted(names) == list(names)


FORBIDDEN = {
    "runs downloaded code": r"trust_remote_code\s*=\s*True",
    "unpickles": r"\bpickle\.loads?\(|^\s*(import|from) pickle\b",
    "makes YAML objects": r"\byaml\.(load|unsafe_load|full_load)\(",
    "evaluates text": r"(?<![\w.])(eval|exec)\(",
    "hides every fault": r"except( Exception| BaseException)?:\s*(\n\s*)?(pass|continue)\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_code_never(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}" for path in CODE for hit in pattern.finditer(path.read_text("utf-8"))
    ]
    assert not found


def test_code_marks_nothing_as_unfinished() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    assert not [str(path) for path in CODE if pattern.search(path.read_text("utf-8"))]


def test_readme_is_short_and_starts_with_a_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(text) <= 180
    assert any(line.startswith("```bash") for line in text[:24]), "the first command stands by line 25"


def test_import_contracts_hold() -> None:
    # As a process: its console writes to the stream that was there when it was imported, which pytest may have closed.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def cpu_seconds(code: str) -> float:
    """The processor time (user and system) of a fresh interpreter that runs this code."""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return used.ru_utime + used.ru_stime


def test_help_is_quick() -> None:
    cpu_seconds(HELP)  # writes the byte code
    # Processor time, not time on the clock: a busy machine does not make the program slower.
    assert statistics.median(cpu_seconds(HELP) for _ in range(3)) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {HELP}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "chimed" in loaded
    assert not loaded & HEAVY
