"""Writes the stages of a build in the formats of other tools: one function a format, streamed, the same bytes always.

A format turns a batch of rows into lines; JSON is made of whole columns by Arrow's kernels. The training split of a
stage is `<stage>.<ext>`, any other `<stage>-<split>.<ext>`; `export.json` lists what was written.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from chimed.errors import BuildError
from chimed.publish.finished import Finished, finished
from chimed.shards import sha256

RECORD = "export.json"
_ROWS = 1024  # a batch
# What a JSON string escapes; the first must come first.
_ESCAPES = [("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")]
_ESCAPES += [(chr(code), f"\\u{code:04x}") for code in range(32) if chr(code) not in "\n\r\t"]
_RARE = "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f]"
_BREAKS = "[\\n\\r\\x0b\\x0c\\x1c-\\x1e\\x{85}\\x{2028}\\x{2029}]"  # where any reader of lines may end one

Render = Callable[[pa.Table], pa.Array]
Described = dict[str, str]  # files by "<stage>" or "<stage>-<split>"


@dataclass(frozen=True, slots=True)
class File:
    """How a stage is written: the file's extension, a batch's rows as lines, and whether they form one JSON array."""

    extension: str
    render: Render
    array: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A format: how each stage that it knows is written, and the files that describe them to the tool."""

    stages: dict[str, File]
    describe: Callable[[Described], dict[str, str]] = lambda files: {}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote: rows of each file, and the stages of the build that the format has no form for."""

    format: str
    folder: Path
    rows: dict[str, int]
    left_out: tuple[str, ...]


def export(out: Path, name: str, target: Path) -> Exported:
    """Writes the stages of the build OUT into `target` in a format of FORMATS; an earlier export there is replaced.

    The folder is complete or absent. Raises BuildError for an unknown format, a build without a stage that the format
    knows, or a folder that holds anything but an export.
    """
    if name not in FORMATS:
        raise BuildError(f"{name}: no such format; allowed are {', '.join(FORMATS)}")
    chosen = FORMATS[name]
    built = finished(out)
    stages = [stage for stage in built if stage.stage in chosen.stages]
    if not stages:
        raise BuildError(f"{out}: holds {_names(built)}, and {name} has a form for {', '.join(chosen.stages)} only")
    _check(out, target)
    place = target.resolve()
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows: dict[str, int] = {}
    files: Described = {}
    for stage in stages:
        file = chosen.stages[stage.stage]
        for split, shards in stage.shards().items():
            label = stage.stage if split == "train" else f"{stage.stage}-{split}"
            files[label] = f"{label}.{file.extension}"
            rows[files[label]] = _write(shards, file, partial / files[label])
    for described, text in chosen.describe(files).items():
        (partial / described).write_text(text, encoding="utf-8")
    digests = {path.name: sha256(path) for path in sorted(partial.iterdir())}
    record = {"format": name, "build": {s.stage: s.manifest["digest"] for s in stages}, "rows": rows, "files": digests}
    (partial / RECORD).write_text(_json(record), encoding="utf-8")
    if place.exists():
        shutil.rmtree(place)
    partial.rename(place)
    return Exported(name, target, rows, tuple(stage.stage for stage in built if stage not in stages))


def _names(built: list[Finished]) -> str:
    return ", ".join(stage.stage for stage in built)


def _check(out: Path, target: Path) -> None:
    """Refuses a target that would lose anything but an earlier export."""
    if target.resolve() == out.resolve() or target.resolve() in out.resolve().parents:
        raise BuildError(f"{target}: holds the build itself; name another folder")
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise BuildError(f"{target}: is a link or a file; name a new folder")
    if not target.exists() or not any(target.iterdir()):
        return
    try:
        known = {*json.loads((target / RECORD).read_text(encoding="utf-8"))["files"], RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        raise BuildError(f"{target}: is not empty and no export of chimed; name a new folder") from None
    foreign = sorted(path.name for path in target.iterdir() if path.name not in known)
    if foreign:
        raise BuildError(f"{target}: holds {', '.join(foreign[:3])} beside the export; move it away")


def _write(shards: list[Path], file: File, path: Path) -> int:
    """One file from the shards of a split, batch by batch; its rows."""
    rows = 0
    with path.open("wb") as sink:
        for shard in shards:
            with pq.ParquetFile(shard) as opened:
                for batch in opened.iter_batches(batch_size=_ROWS):
                    lines = file.render(pa.Table.from_batches([batch]))
                    if file.array:
                        sink.write(b",\n" if rows else b"[\n")
                        lines = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), ",\n")
                    else:
                        lines = _joined(lines, "\n")
                    rows += len(batch)
                    _pour(lines, sink)
        if file.array:
            sink.write(b"\n]\n" if rows else b"[]\n")
    return rows


def _pour(lines: pa.Array, sink: BinaryIO) -> None:
    """Writes the bytes of a whole array, one text after the other."""
    _, bounds, data = lines.buffers()
    places = pa.Array.from_buffers(pa.int32(), len(lines) + 1, [None, bounds], offset=lines.offset)
    if data is not None:
        sink.write(memoryview(data)[places[0].as_py() : places[-1].as_py()])


def _joined(*columns: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*columns, "")


def _quoted(texts: pa.Array) -> pa.Array:
    """Texts as JSON strings.

    >>> _quoted(pa.array(['一"\\n']))[0].as_py()
    '"一\\\\"\\\\n"'
    """
    rare = pc.any(pc.match_substring_regex(texts, _RARE)).as_py()
    for plain, escaped in _ESCAPES if rare else _ESCAPES[:5]:
        texts = pc.replace_substring(texts, plain, escaped)
    return _joined('"', texts, '"')


def _object(**members: pa.Array) -> pa.Array:
    """JSON objects of members that are JSON."""
    parts: list[pa.Array | str] = []
    for name, values in members.items():
        parts += [f'{", " if parts else "{"}"{name}": ', values]
    return _joined(*parts, "}")


def _together(lists: pa.ListArray, values: pa.Array, between: str) -> pa.Array:
    """The values that belong to each of the lists, as one text."""
    offsets = pc.subtract(lists.offsets, lists.offsets[0])
    return pc.binary_join(pa.ListArray.from_arrays(offsets, values), between)


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()


def _turns(turns: pa.ListArray, role: str = "role", content: str = "content") -> pa.Array:
    """One JSON object a turn, over all rows."""
    said = turns.flatten()
    roles = said.field("role")
    if role == "from":  # as the released ChiMed calls them
        roles = pc.replace_substring(pc.replace_substring(roles, "user", "input"), "assistant", "output")
    return _object(**{role: _quoted(roles), content: _quoted(said.field("content"))})


def _messages(turns: pa.ListArray) -> pa.Array:
    return _joined("[", _together(turns, _turns(turns), ", "), "]")


def _reply(table: pa.Table, name: str) -> pa.Array:
    """The text of the one turn of each chosen or rejected reply."""
    return _column(table, name).flatten().field("content")


def _chat(table: pa.Table) -> pa.Array:
    return _object(messages=_messages(_column(table, "messages")))


def _text(table: pa.Table) -> pa.Array:
    return _object(text=_quoted(_column(table, "text")))


def _one_line(table: pa.Table) -> pa.Array:
    """A record a line: every run of line breaks within one becomes a space."""
    text = _column(table, "text")
    return pc.utf8_trim(pc.replace_substring_regex(text, f"[ \\t]*{_BREAKS}(?:{_BREAKS}|[ \\t])*", " "), " ")


def _paragraph(table: pa.Table) -> pa.Array:
    """A document, its line breaks kept but no blank line within, and a blank line after it."""
    text = pc.replace_substring_regex(_column(table, "text"), f"{_BREAKS}(?:{_BREAKS}|[ \\t])*", "\n")
    return _joined(pc.utf8_trim(text, "\n "), "\n")


def _conversations(table: pa.Table) -> pa.Array:
    turns = _column(table, "messages")
    return _object(conversations=_joined("[", _together(turns, _turns(turns, "from", "value"), ", "), "]"))


def _reward(table: pa.Table) -> pa.Array:
    """The pair with its prompt as one text, the turns of a longer one a line each."""
    prompt = _column(table, "prompt")
    question = _together(prompt, prompt.flatten().field("content"), "\n")
    return _object(
        question=_quoted(question),
        response_chosen=_quoted(_reply(table, "chosen")),
        response_rejected=_quoted(_reply(table, "rejected")),
    )


def _ranked(table: pa.Table) -> pa.Array:
    """A prompt and its two replies, each one turn."""
    turns = {name: _turns(_column(table, name)) for name in ("chosen", "rejected")}
    return _object(messages=_messages(_column(table, "prompt")), **turns)


def _rejected_response(table: pa.Table) -> pa.Array:
    prompt = _column(table, "prompt")
    whole = _joined("[", _together(prompt, _turns(prompt), ", "), ", ", _turns(_column(table, "chosen")), "]")
    return _object(messages=whole, rejected_response=_quoted(_reply(table, "rejected")))


def _pretrain(table: pa.Table) -> pa.Array:
    """A text as the one reply of a conversation, all of which is trained on."""
    turn = _object(role=pa.repeat('"assistant"', len(table)), content=_quoted(_column(table, "text")))
    return _object(messages=_joined("[", turn, "]"))


def _preferred(table: pa.Table) -> pa.Array:
    said = _object(messages=_messages(_column(table, "prompt")))
    return _object(
        input=said,
        preferred_output=_messages(_column(table, "chosen")),
        non_preferred_output=_messages(_column(table, "rejected")),
    )


def _dataset_info(files: Described) -> dict[str, str]:
    """LLaMA-Factory's registry of data sets."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    chat = {"formatting": "sharegpt", "tags": {**tags, "system_tag": "system"}}
    forms: dict[str, dict[str, Any]] = {
        "cpt": {"columns": {"prompt": "text"}},
        "sft": {**chat, "columns": {"messages": "messages"}},
        "dpo": {
            **chat,
            "ranking": True,
            "columns": {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
        },
    }
    entries = {
        f"chimed_{label.replace('-', '_')}": {"file_name": name, **forms[label.partition("-")[0]]}
        for label, name in files.items()
    }
    return {"dataset_info.json": _json(entries)}


def _axolotl(files: Described) -> dict[str, str]:
    """A snippet for each stage's configuration; its paths hold where axolotl runs in the folder of the export."""
    properties = {"message_property_mappings": {"role": "role", "content": "content"}}
    forms: dict[str, dict[str, Any]] = {
        "cpt": {"type": "completion", "field": "text"},
        "sft": {"type": "chat_template", "field_messages": "messages", **properties},
        "dpo": {
            "type": "chat_template.default",
            "field_messages": "messages",
            "field_chosen": "chosen",
            "field_rejected": "rejected",
            **properties,
        },
    }
    described = {}
    for stage in [label for label in files if label in forms]:
        content: dict[str, Any] = {"rl": "dpo"} if stage == "dpo" else {}
        for key, label in (("datasets", stage), ("test_datasets", f"{stage}-validation")):
            if label in files:
                content[key] = [{"path": files[label], "ds_type": "json", "split": "train", **forms[stage]}]
        described[f"{stage}.yaml"] = yaml.safe_dump(content, sort_keys=False)
    return described


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


_CHAT = File("jsonl", _chat)
_RANKED = File("jsonl", _ranked)
_TEXT = File("jsonl", _text)
FORMATS: dict[str, Format] = {
    "released": Format(
        {"cpt": File("txt", _one_line), "sft": File("jsonl", _conversations), "dpo": File("json", _reward, array=True)}
    ),
    "llama-factory": Format({"cpt": _TEXT, "sft": _CHAT, "dpo": _RANKED}, _dataset_info),
    "axolotl": Format({"cpt": _TEXT, "sft": _CHAT, "dpo": _RANKED}, _axolotl),
    "ms-swift": Format({"cpt": File("jsonl", _pretrain), "sft": _CHAT, "dpo": File("jsonl", _rejected_response)}),
    "openai": Format({"sft": _CHAT, "dpo": File("jsonl", _preferred)}),
    "text": Format({"cpt": File("txt", _paragraph)}),
}
