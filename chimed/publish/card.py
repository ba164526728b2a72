"""The data card of a stage: what is in it, where it came from, and what it must not be used for."""

from typing import Any

import yaml

from chimed.recipe import Loaded

_WHAT = {
    "cpt": ("continued pre-training", "text-generation", "`text`: one document a row"),
    "sft": ("supervised fine-tuning", "text-generation", "`messages`: a conversation as `[{role, content}, …]`"),
    "dpo": (
        "preference optimisation",
        "text-generation",
        "`prompt`, `chosen`, `rejected`: messages; `kind`: how made",
    ),
    "eval": (
        "evaluation",
        "question-answering",
        "`kind` (exam or open), `question`, `options`, `answer`",
    ),
    "rag": ("retrieval", "text-retrieval", "`title`, `text`: a passage cut at sentence ends, `part`: its place"),
}


def card(manifest: dict[str, Any], loaded: Loaded) -> str:
    """The card of a stage in the Hub's format: YAML front matter and Markdown."""
    name = manifest["stage"]
    purpose, task, columns = _WHAT[name]
    data_files = [{"split": split, "path": f"{split}-*.parquet"} for split in manifest["rows"]]
    front = {
        "language": ["zh"],
        "license": "other",
        "task_categories": [task],
        "tags": ["medical", "chimed"],
        "pretty_name": f"ChiMed {name}",
        "configs": [{"config_name": "default", "data_files": data_files}],
    }
    sources = {item.source.name: item.source for item in loaded.ingredients}
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# ChiMed: {name}",
        "",
        f"Chinese medical data for {purpose}, built by `chimed build --stage {name}` from public sources.",
        "",
        "**Not for clinical use.** The text comes from websites, exams and textbooks; it holds errors and outdated",
        "advice. Nothing trained on it may be used to diagnose, treat or advise a patient.",
        "",
        f"Every row has `id` (source/file#row) and `source`; {columns}.",
        "",
        "| split | rows |",
        "|---|---:|",
        *(f"| {split} | {rows:,} |" for split, rows in manifest["rows"].items()),
        "",
        "| source | licence as published | rows here | read | rejected | repeated | leaked |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for source, rows in manifest["sources"].items():
        counts = _sum(manifest["counts"].get(source, {}))
        spec = sources[source]
        title = f"[{spec.title}]({spec.homepage})" if spec.homepage else spec.title
        cells = [title, spec.license, f"{sum(rows.values()):,}"]
        cells += [f"{counts[verdict]:,}" for verdict in ("read", "rejected", "repeated", "leaked")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += _pairs(manifest.get("pairs", {}))
    recipe = manifest["recipe"]
    lines += [
        "",
        "Read, rejected, repeated and leaked count records of the whole corpus, before they were rendered for a stage.",
        f"Rows of evaluation sets never train; near-copies at Jaccard {recipe['near']} or above (distinct character",
        "5-grams, verified) were removed across all sources; mobile numbers, identity numbers and other personal data",
        "were masked. The licences of the sources hold for their rows: check them before you redistribute anything.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset("path/to/{name}")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _pairs(pairs: dict[str, Any]) -> list[str]:
    """The table of preference pairs by how they were made."""
    if not pairs:
        return []
    lines = [
        "",
        "| pairs | made | kept | median length, chosen to rejected | of those kept |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, own in pairs.items():
        kept = f"{own['ratio_kept']:.2f}" if own["ratio_kept"] is not None else ""
        lines.append(f"| {kind} | {own['made']:,} | {own['kept']:,} | {own['ratio']:.2f} | {kept} |")
    return lines


def _sum(files: dict[str, dict[str, int]]) -> dict[str, int]:
    names = ("read", "kept", "rejected", "repeated", "leaked")
    return {name: sum(counts[name] for counts in files.values()) for name in names}
