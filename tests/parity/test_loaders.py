"""Exports loaded by the tools they are for, with those tools' own code: every row comes back, whatever stands in it.

The tools want versions of their own, so each is looked for in a virtual environment of its own below the folder that
CHIMED_LOADERS names (`llama-factory`, `axolotl`, `ms-swift`), and else in this one. Others are skipped:

    python -m venv DIR/ms-swift && DIR/ms-swift/bin/pip install ms-swift
    CHIMED_LOADERS=DIR python -m pytest tests/parity/test_loaders.py
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chimed.publish.export import export
from chimed.publish.finished import finished
from chimed.stages import COLUMNS

HERE = Path(__file__).parent / "loaders"
MODULES = {"llama-factory": "llamafactory", "axolotl": "axolotl", "ms-swift": "swift"}
USER, REPLY = {"role": "user"}, {"role": "assistant"}
ODD = [
    '引号"与反斜线\\n和\\u0041',
    "第一行\n\n第二行\t列",
    "👩‍⚕️𠮷\u2028行\u3000",
    "{{ messages }} <script>1</script> $x",
    " 前后有空格 ",
]
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
QUIET |= {"DISABLE_VERSION_CHECK": "1", "TOKENIZERS_PARALLELISM": "false"}  # the rows are looked at, not the versions

Messages = list[dict[str, str]]


def _talk(number: int, odd: str) -> Messages:
    said = [{**USER, "content": f"问题{number}？{odd}"}, {**REPLY, "content": f"答{number}：{odd}。"}]
    more = [{**USER, "content": f"还有{number}？"}, {**REPLY, "content": f"没有{number}了。"}]
    return [{"role": "system", "content": "你是医生。"}, *said, *more] if number % 2 else said


def _rows() -> dict[str, list[dict[str, Any]]]:
    named = [{"id": f"a/f#{number}", "source": "a"} for number in range(len(ODD))]
    pairs = [
        {"chosen": [{**REPLY, "content": f"好{odd}。"}], "rejected": [{**REPLY, "content": f"坏{odd}。"}]}
        for odd in ODD
    ]
    return {
        "cpt": [{**row, "text": f"文{odd}"} for row, odd in zip(named, ODD, strict=True)],
        "sft": [{**row, "messages": _talk(number, ODD[number])} for number, row in enumerate(named)],
        "dpo": [
            {**row, **pair, "prompt": _talk(0, ODD[0])[:1], "kind": "given"}
            for row, pair in zip(named, pairs, strict=True)
        ],
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's build, with rows that are hard to quote added to the end of each stage."""
    folder = tmp_path_factory.mktemp("loaders") / "out"
    stages = [argument for name in COLUMNS if name in ("cpt", "sft", "dpo") for argument in ("--stage", name)]
    command = [sys.executable, "-m", "chimed.cli", "build", *stages, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    for stage, own in _rows().items():
        path = folder / stage / "train-00000-of-00001.parquet"
        pq.write_table(pa.concat_tables([pq.read_table(path), pa.Table.from_pylist(own, COLUMNS[stage])]), path)
    return folder


def _built(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of the build by the name of the file that an export gives them."""
    return {
        stage.stage if split == "train" else f"{stage.stage}-{split}": [
            row for path in paths for row in pq.read_table(path).to_pylist()
        ]
        for stage in finished(out)
        for split, paths in stage.shards().items()
    }


def _plain(stage: str, row: dict[str, Any]) -> Any:
    match stage:
        case "cpt":
            return row["text"]
        case "sft":
            return row["messages"]
        case _:
            return [row["prompt"], *row["chosen"], *row["rejected"]]


def _chatml(said: Messages) -> str:
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in said)


def _tokens(stage: str, row: dict[str, Any]) -> Any:
    """The text axolotl should train on: all of it, and the part that has labels; of a pair its three texts."""
    match stage:
        case "cpt":
            return [f"{row['text']}<|im_end|>"] * 2
        case "sft":
            replies = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
            return [_chatml(row["messages"]), "".join(f"{reply}<|im_end|>" for reply in replies)]
        case _:
            prompt = f"{_chatml(row['prompt'])}<|im_start|>assistant\n"
            return [prompt, *(f"{row[side][0]['content']}<|im_end|>" for side in ("chosen", "rejected"))]


def _python(tool: str) -> str:
    own = Path(os.environ.get("CHIMED_LOADERS", "none")) / tool / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({MODULES[tool]!r}) is None)"
    if subprocess.run([python, "-c", code], check=False, cwd="/").returncode:
        pytest.skip(f"{tool} is not installed; the head of this file says where to put it")
    return python


@pytest.mark.parametrize("tool", MODULES)
def test_the_tool_loads_every_row(out: Path, tmp_path: Path, tool: str) -> None:
    python = _python(tool)
    folder = export(out, tool, tmp_path / "export").folder
    (scratch := tmp_path / "scratch").mkdir()
    script = HERE / f"of_{tool.replace('-', '_')}.py"
    command = [python, "-W", "ignore", str(script), str(folder), str(scratch), str(tmp_path / "found.json")]
    done = subprocess.run(
        command, env={**os.environ, **QUIET, "HF_HOME": str(scratch)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    expected: Callable[[str, dict[str, Any]], Any] = _tokens if tool == "axolotl" else _plain
    rows = _built(out)
    assert found.keys() == rows.keys()
    for name, own in rows.items():
        wanted = [expected(name.partition("-")[0], row) for row in own]
        assert len(found[name]) == len(wanted)
        for got, want in zip(found[name], wanted, strict=True):
            assert got == want, name
