"""What the commands print: tables that fit 80 columns, and the plain data behind `--json`."""

import json
import random
from pathlib import Path
from typing import Any
from unicodedata import category

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chimed.build import Request
from chimed.errors import SourceError
from chimed.ledger import look_up
from chimed.outcome import Outcome
from chimed.publish.export import Exported
from chimed.publish.figures import visible
from chimed.publish.hub import Pushed
from chimed.reasons import meaning
from chimed.sources import discover
from chimed.sources.fetch import Fetched
from chimed.sources.readers import find, looked_up
from chimed.sources.spec import Source

VERDICTS = ("read", "rejected", "repeated", "leaked", "kept")


class _Console(Console):
    """Prints strings as data: no markup, no names of emoji, and nothing that acts on the terminal."""

    def __init__(self, *, soft_wrap: bool = False) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_plain(text), **options)


def _plain(text: str) -> str:
    """Data with controls and marks of direction made visible, and a sign for whatever else is not printed.

    >>> _plain("\\x1b[31m红\\u202e[b]\\t\\ue000")
    '␛[31m红⟨U+202E⟩[b] �'
    """
    seen = visible(text, len(text)).replace("\t", " ")
    return "".join(c if c.isprintable() or c == "\n" or category(c) == "Zs" else "�" for c in seen)


def _safe(text: str, limit: int) -> Text:
    """Data as text of at most so many characters."""
    return Text(_plain(visible(text, limit)))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(columns[0], overflow="fold")
    for name in columns[1:]:
        table.add_column(name, justify="right")
    return table


def show_outcome(outcome: Outcome, request: Request) -> None:
    """The summary of a build."""
    console = _Console()
    if request.raw is None:
        console.print("Built from the sample corpus that comes with chimed; --raw DIR builds from your raw files.\n")
    table = _table("source", *VERDICTS)
    total = dict.fromkeys(VERDICTS, 0)
    for source, files in outcome.counts.items():
        row = {name: sum(counts[name] for counts in files.values()) for name in VERDICTS}
        table.add_row(source, *(f"{row[name]:,}" for name in VERDICTS))
        total = {name: total[name] + row[name] for name in VERDICTS}
    table.add_section()
    table.add_row("all", *(f"{total[name]:,}" for name in VERDICTS))
    console.print(table)
    stages = _table("stage", "train", "validation", "test", "folder")
    folder = request.sent.shown if request.sent else request.out
    for name, manifest in outcome.stages.items():
        rows = manifest["rows"]
        cells = (f"{rows[split]:,}" if split in rows else "" for split in ("train", "validation", "test"))
        stages.add_row(name, *cells, f"{folder}/{name}")
    console.print()
    console.print(stages)
    console.print()
    console.print(_steps(outcome))
    _remarks(outcome, request, console)
    built = sum(sum(manifest["rows"].values()) for manifest in outcome.stages.values())
    megabytes = outcome.bytes / 1e6
    speed = f"{megabytes:,.1f} MB in {outcome.wall:.1f} s, {megabytes / outcome.wall:,.1f} MB/s"
    console.print(f"\nwhat became of a row: chimed why ID --out {request.out}", soft_wrap=True)
    console.print(f"Built {built:,} rows: {', '.join(outcome.stages)} ({speed})", soft_wrap=True)


def _steps(outcome: Outcome) -> Table:
    table = _table("step", "seconds", "MB/s")
    seconds = {step: value for manifest in outcome.stages.values() for step, value in manifest["seconds"].items()}
    for step, value in seconds.items():
        table.add_row(step, f"{value:.2f}", f"{outcome.bytes / 1e6 / max(value, 1e-3):,.1f}")
    return table


def _remarks(outcome: Outcome, request: Request, console: Console) -> None:
    if again := sum(outcome.again.values()):
        console.print(f"in an earlier build already: {again:,}", soft_wrap=True)
    if outcome.reasons:
        first = sorted(outcome.reasons.items(), key=lambda entry: -entry[1])
        listed = ", ".join(f"{reason} {count:,}" for reason, count in first[:6])
        console.print(f"\nrejected for: {listed}{', …' if len(first) > 6 else ''}")
    if outcome.masked and any(outcome.masked.values()):
        console.print(
            "masked: " + ", ".join(f"{kind} {n:,}" for kind, n in outcome.masked.items() if n), highlight=False
        )
    for kind, own in outcome.stages.get("dpo", {}).get("pairs", {}).items():
        after = f", now {own['ratio_kept']:.2f}" if own["ratio_kept"] else ""
        told = f"kept {own['kept']:,} of {own['made']:,}; chosen to rejected length {own['ratio']:.2f}{after}"
        console.print(f"pairs, {kind}: {told}")
    if outcome.missing and request.raw is not None:
        console.print(f"not found below the raw folder: {', '.join(outcome.missing)}")
    for source, files in outcome.unread.items():
        names = ", ".join(file.name for file in files[:2])
        console.print(f"not read: {len(files):,} files of {source} ({names}, …)")
    for source, needed in outcome.looked_up.items():
        console.print(f"looked up for the rows of {source}: {', '.join(needed)}")
    if outcome.empty:
        console.print(f"no rows for: {', '.join(outcome.empty)}")


def sources(raw: Path | None) -> list[dict[str, Any]]:
    """Every built-in source, and the state of its files below `raw`: found, partly found, missing, or unknown."""
    return [
        {
            "name": source.name,
            "title": source.title,
            "shapes": list(source.shapes),
            "stages": list(source.stages),
            "license": source.license,
            "homepage": source.homepage,
            "files": {
                **source.files,
                **{glob: "looked up" for lookup in source.lookups for glob in lookup.files},
            },
            "fetch": [file.url for file in source.origin.files],
            "state": "unknown" if raw is None else _state(source, raw),
        }
        for source in discover().values()
    ]


def _state(source: Source, raw: Path) -> str:
    """Whether all splits of a source have files, and what is looked up for them: patterns may be of other forms."""
    files = find(source, raw)[0] if (raw / source.name).is_dir() else []
    if not files:
        return "missing"
    splits = {file.split for file in files}
    lacking: list[str] = [split for split in dict.fromkeys(source.files.values()) if split not in splits]
    needed = {place for file in files for place, group in enumerate(file.joins) if group == ()}
    lacking += [source.lookups[place].files[0].removeprefix("**/") for place in sorted(needed)]
    count = len({file.name for file in [*files, *looked_up(files)]})
    found = f"found {count} file{'s' if count > 1 else ''}"
    return f"partly found, no {' or '.join(lacking)} files" if lacking else found


def show_sources(listed: list[dict[str, Any]]) -> None:
    """The sources, two lines each: what it is, and where it comes from or what to put where."""
    console = _Console(soft_wrap=True)
    for entry in listed:
        shapes, stages = ", ".join(entry["shapes"]), " ".join(entry["stages"])
        state = "" if entry["state"] == "unknown" else f"  {entry['state']}"
        console.print(
            Text(entry["name"], "bold").append(f"  {shapes}: {stages}  [{entry['license']}]{state}", "default")
        )
        patterns = ", ".join(list(entry["files"])[:3]) + (", …" if len(entry["files"]) > 3 else "")
        console.print(Text(f"    {entry['homepage'] or 'no home page known'}", "dim"))
        if entry["state"] == "missing":
            get = f"chimed fetch {entry['name']}, or " if entry["fetch"] else ""
            console.print(Text(f"    {get}put its files into RAW/{entry['name']}/: {patterns}"))
    if all(entry["state"] == "unknown" for entry in listed):
        console.print("\nWhich of them are there: chimed sources --raw DIR; everything: chimed sources --json")


def show_licences(chosen: list[Source]) -> None:
    """Under which licence each source is published, before anything of it is fetched."""
    console = _Console(soft_wrap=True)
    for source in chosen:
        home = f", {source.homepage}" if source.homepage else ""
        console.print(f"{source.name}: licence {source.license}{home}")


def show_fetched(found: list[Fetched]) -> None:
    """What became of each file, with its digest, and what is left to be got by hand; failures are told by `check`."""
    console = _Console()
    table = _table("file", "state", "MB", "sha256")
    for entry in found:
        if entry.state != "by-hand":
            name = f"{entry.source}/{Path(entry.path).name}"
            table.add_row(name, entry.state, f"{entry.size / 1e6:,.1f}", entry.sha256[:16])
    if table.row_count:
        console.print(table)
        for entry in found:
            if entry.state in ("kept", "by-hand"):
                console.print(f"\n{entry.source}: {entry.detail}", soft_wrap=True)


def sample(folder: Path, rows: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest of a stage's folder and some of its rows by the seed. Raises SourceError without a manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise SourceError(f"{folder}: no manifest.json, so no finished stage; name a folder such as out/sft")
    manifest = json.loads(path.read_text())
    table = ds.dataset([folder / name for name in manifest["files"] if name.endswith(".parquet")])
    total = table.count_rows()
    numbers = sorted(random.Random(seed).sample(range(total), min(rows, total)))
    return manifest, table.take(numbers).to_pylist() if numbers else []


def show_stage(folder: Path, manifest: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A stage's manifest and rows, readable."""
    console = _Console()
    table = _table("source", *manifest["rows"])
    for source, counts in manifest["sources"].items():
        table.add_row(source, *(f"{counts.get(split, 0):,}" for split in manifest["rows"]))
    table.add_section()
    table.add_row("all", *(f"{count:,}" for count in manifest["rows"].values()))
    console.print(f"{folder}: stage {manifest['stage']}\n")
    console.print(table)
    for row in rows:
        console.print()
        console.rule(_safe(row["id"], 70), align="left")
        for name, value in row.items():
            if name in ("id", "source") or value in ("", [], None):
                continue
            if isinstance(value, list) and value and isinstance(value[0], dict):
                for turn in value:
                    console.print(Text(f"[{name}: {turn['role']}] ", "bold").append(_safe(turn["content"], 600)))
            else:
                shown = "\n  ".join(value) if isinstance(value, list) else str(value)
                console.print(Text(f"[{name}] ", "bold").append(_safe(shown, 1200)))


def explain(out: Path, name: str) -> list[dict[str, Any]]:
    """The ledger's rows of an id or raw row, with the reason in words. Raises SourceError when there is none."""
    found: list[dict[str, Any]] = look_up(out / "ledger.parquet", name).to_pylist()
    if not found:
        raise SourceError(
            f"{out / 'ledger.parquet'}: no row {name!r}; an id is source/file#row, as the stages' id column has it"
        )
    for row in found:
        rejected = row["verdict"] == "rejected"
        row["meaning"] = meaning(row["reason"]) if rejected else _MEANINGS[row["verdict"]].format(**row)
    return found


_MEANINGS = {
    "kept": "in every stage that takes it by the recipe's shares and caps",
    "repeated": "the same text as {by} ({detail}), which ranks before it",
    "leaked": "overlaps the evaluation item {by} ({detail}), so it must not train",
}


def show_explained(found: list[dict[str, Any]]) -> None:
    """What became of rows, one line each."""
    console = _Console()
    for row in found:
        reason = f" ({row['reason']})" if row["reason"] else ""
        detail = f"; {row['detail']}" if row["verdict"] == "rejected" and row["detail"] else ""
        console.print(_safe(f"{row['id']}: {row['verdict']}{reason}: {row['meaning'].rstrip('.')}{detail}", 1000))


def show_statistics(found: dict[str, Any]) -> None:
    """Each stage by source and split, and what became of the rows of each source."""
    console = _Console()
    for stage in found["stages"]:
        table = _table("source", "split", "rows", "characters", "share", "median", "p90")
        for row in stage["sources"]:
            cells = (f"{row['rows']:,}", f"{row['characters']:,}", f"{row['share']:.1%}")
            table.add_row(_safe(row["source"], 60), row["split"], *cells, f"{row['median']:,.0f}", f"{row['p90']:,.0f}")
        table.add_section()
        cells = (f"{stage['rows']:,}", f"{stage['characters']:,}", "")
        table.add_row("all", "", *cells, f"{stage['median']:,.0f}", f"{stage['p90']:,.0f}")
        console.print(Text(f"{stage['stage']}: characters of a row", "bold"))
        console.print(table)
        console.print()
    table = _table("source", "read", "repeated", "of read", "leaked", "of read")
    for source, counts in found["corpus"].items():
        shares = [f"{counts[name] / max(counts['read'], 1):.1%}" for name in ("repeated", "leaked")]
        repeated, leaked = (f"{counts[name]:,}" for name in ("repeated", "leaked"))
        table.add_row(_safe(source, 60), f"{counts['read']:,}", repeated, shares[0], leaked, shares[1])
    console.print(Text("corpus: duplicates and leaks", "bold"))
    console.print(table)


def show_changes(found: dict[str, Any]) -> None:
    """What changed between two builds; the rows that came or went with examples."""
    console = _Console()
    for setting in found["recipe"]:
        console.print(_safe(f"recipe: {setting['key']}: {setting['before']} -> {setting['after']}", 400))
    table = _table("what", "before", "after", "change")
    counted = [(f"{own['stage']}, {own['split']}", own) for own in found["stages"]]
    for own in found["counts"]:
        reason = f" ({own['reason']})" if own["reason"] else ""
        counted.append((f"{own['source']}: {own['verdict']}{reason}", own))
    for name, own in counted:
        table.add_row(_safe(name, 60), *(f"{own[at]:,}" for at in _SIDES), f"{own['after'] - own['before']:+,}")
    if not counted and not found["moves"] and not found["recipe"]:
        console.print("No row has another verdict, and the recipes are the same.")
        return
    console.print(table)
    for move in found["moves"][:_MOVES]:
        was, now = (
            " ".join(filter(None, (move[at] or "absent", move[f"{at}_reason"] and f"({move[f'{at}_reason']})")))
            for at in _SIDES
        )
        console.print(
            _safe(f"\n{move['source']}: {was} -> {now}: {move['rows']:,} row{'s' if move['rows'] > 1 else ''}", 300)
        )
        for row in move["examples"]:
            console.print(_safe(f"  {row['id']}", 300))
            for at in filter(row.get, _SIDES):
                console.print(_safe(f"    {at}: {row[at]}", 300))
    if len(found["moves"]) > _MOVES:
        console.print(f"\n… and {len(found['moves']) - _MOVES} more kinds of change: --json has them all")
    console.print(f"\nkept: {found['kept']['in']:,} rows in, {found['kept']['out']:,} out")


_SIDES = ("before", "after")
_MOVES = 20  # kinds of change that are printed


def show_pushed(done: Pushed) -> None:
    """What a push sent, and where it is."""
    console = _Console()
    planned = not done.commit
    if done.uploaded or done.deleted:
        table = _table("file", "MB")
        for path, size in done.uploaded.items():
            table.add_row(path, f"{size / 1e6:,.1f}" if size >= 50_000 else "<0.1")
        for path in done.deleted:
            table.add_row(path, "would be deleted" if planned else "deleted")
        console.print(table)
        console.print()
    megabytes = sum(done.uploaded.values()) / 1e6
    did = "would upload" if planned else "uploaded"
    sent = f"{did} {len(done.uploaded):,} files, {megabytes:,.1f} MB" if done.uploaded else "nothing to upload"
    kept = f"; {done.present:,} files were there already" if done.present else ""
    console.print(f"{sent}{kept}", soft_wrap=True)
    console.print(f"{done.url} ({'private' if done.private else 'public'}), tag {done.tag}", soft_wrap=True)


def show_exported(done: Exported) -> None:
    """What an export wrote."""
    console = _Console()
    table = _table("file", "rows")
    for name, rows in done.rows.items():
        table.add_row(name, f"{rows:,}")
    console.print(table)
    if done.left_out:
        console.print(f"\n{done.format} has no form for: {', '.join(done.left_out)}", soft_wrap=True)
    console.print(f"\nWrote {done.folder}", soft_wrap=True)
