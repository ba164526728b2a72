"""The data card of a stage in the Hub's format: what is in it, where it came from, what it must not be used for.

A card is made from the stage's folder alone: its manifest, its shards (for a few rows) and the plots beside them.
"""

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import yaml

from chimed.publish import statistics
from chimed.publish.finished import Finished
from chimed.publish.licences import REDISTRIBUTABLE, UNKNOWN, Licensed, licensed, terms
from chimed.publish.markdown import code, example, link, table, words
from chimed.publish.steps import steps
from chimed.publish.wording import FORBIDDEN, LIMITS, WHAT
from chimed.recipe import load_recipe

EXAMPLES = 3
_LOOK = 1024  # rows looked at together for examples: shards are shuffled, the first few hold them
PLOTS = {"plot-sources.png": "What became of the units of each source", "plot-lengths.png": "Lengths of the rows"}
LICENCE = "LICENSE.md"
_HUB = {name.lower() for name in REDISTRIBUTABLE} | {"cc-by-nd-4.0", "cc-by-nc-nd-4.0"}
_NOT_COMMERCIAL = re.compile(r"(?i)-NC\b|non-?commercial|academic|research")


def front(found: Finished) -> dict[str, Any]:
    """The front matter of the card. A licence that the Hub has no name for makes it `other`, told in LICENSE.md."""
    rows = sum(found.manifest["rows"].values())
    return {
        "language": found.manifest["languages"],
        **licence_front(licensed([found])),
        "pretty_name": f"ChiMed for {WHAT[found.stage].purpose}",
        "size_categories": [size_category(rows)],
        "task_categories": list(WHAT[found.stage].tasks),
        "tags": ["medical", "chimed", found.stage],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}-*.parquet"} for split in found.manifest["rows"]],
            }
        ],
    }


def licence_front(sources: list[Licensed]) -> dict[str, Any]:
    names = sorted({source.license.lower() for source in sources})
    if set(names) <= _HUB:
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": "mixed", "license_link": LICENCE}


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows.

    >>> size_category(999), size_category(1000), size_category(250_000), size_category(3_000_000)
    ('n<1K', '1K<n<10K', '100K<n<1M', '1M<n<10M')
    """
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    place = next((place for place in range(len(names)) if rows < 10 ** (place + 3)), len(names))
    if place in (0, len(names)):
        return "n<1K" if place == 0 else "n>1T"
    return f"{names[place - 1]}<n<{names[place]}"


def card(found: Finished) -> str:
    """The card of a stage: YAML front matter and Markdown."""
    manifest, what = found.manifest, WHAT[found.stage]
    sources = licensed([found])
    size = manifest["size"]
    tokens = f", {size['tokens']:,} tokens" if manifest["tokenizer"] else ""
    lines = [
        "---",
        yaml.safe_dump(front(found), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# ChiMed for {what.purpose}",
        "",
        f"{what.told} {size['rows']:,} rows, {size['characters']:,} characters{tokens}, from {len(sources)} "
        f"sources; the stage `{found.stage}` of a build by `chimed` {manifest['versions']['chimed']}.",
        "",
        "> **Not for clinical use.** The text comes from websites, exams, textbooks and language models; it holds",
        "> errors and outdated advice. Neither it nor a model trained on it may be used to diagnose, treat or advise a",
        "> patient.",
        *table(["column", "what it holds"], [[f"`{name}`", told] for name, told in what.columns.items()], left=2),
        "## Sources and licences",
        *_terms(sources),
        "## Size",
        *_sizes(manifest),
        *_plot(found, "plot-lengths.png"),
        *steps(manifest, sources, _plot(found, "plot-sources.png")),
        "## Examples",
        "",
        f"Texts are cut after a few hundred characters{_shown(sources)}.",
        "",
        *[line for row in _examples(found, sources) for line in [*example(row), ""]],
        "## Known limits",
        "",
        *[f"- {limit}" for limit in _limits(manifest)],
        "",
        "## Uses",
        "",
        f"**Meant for** {what.use}.",
        "",
        "**Not allowed, or not fit for:**",
        "",
        *[f"- {use}" for use in FORBIDDEN[found.stage]],
        "",
        *_load(found),
        *_rebuild(manifest),
    ]
    return "\n".join(lines) + "\n"


def licence(found: Finished) -> str | None:
    """What LICENSE.md says; None where the front matter says it all."""
    sources = licensed([found])
    if licence_front(sources)["license"] != "other":
        return None
    return "\n".join(["# Licences of the sources", *_terms(sources)]).rstrip() + "\n"


def _terms(sources: list[Licensed]) -> list[str]:
    """What the licences ask for together, strictest first, and each source's."""
    told = terms([replace(source, name=code(source.name)) for source in sources])
    bare = [code(source.name) for source in sources if source.asks is None]
    no = [f"{code(source.name)} ({words(source.license)})" for source in sources if _commercial(source) is False]
    passing = f"**no**: no right to it was found for {', '.join(bare)}" if bare else "yes, on the terms below"
    commercial = f"**no**: forbidden by the licence of {', '.join(no)}" if no else passing
    lines = [
        "",
        "Each row keeps the licence of its source, which its column `source` names. For the data set as a whole the",
        "strictest licence decides:",
        "",
        f"- May it be passed on? As a whole {passing}.",
        f"- May it be used commercially? As a whole {commercial}.",
        "",
        "What the licences ask for, strictest first:",
        "",
        *[f"{place}. {sentence}" for place, sentence in enumerate(told or ["Nothing."], 1)],
    ]
    rows = []
    for source in sorted(sources, key=lambda source: -source.rows):
        asks = "no right to pass it on was found" if source.asks is None else "; ".join(source.asks) or "nothing"
        stated = "none stated" if source.license == UNKNOWN else words(source.license)
        rows.append([code(source.name), link(source.title, source.homepage), stated, asks, source.rows])
    return [*lines, *table(["source", "what", "licence as published", "asks", "rows"], rows, left=4)]


def _commercial(source: Licensed) -> bool | None:
    """Whether a licence allows commercial use; None where nothing says it."""
    if _NOT_COMMERCIAL.search(source.license):
        return False
    return None if source.asks is None else True


def _sizes(manifest: dict[str, Any]) -> list[str]:
    """Rows, characters and tokens by split, and by source and split."""
    size, named = manifest["size"], manifest["tokenizer"]
    units = ["rows", "characters", *(["tokens"] if named else [])]
    splits: dict[str, Counter[str]] = {split: Counter() for split in manifest["rows"]}
    whole: Counter[str] = Counter()  # the splits of a source stay together
    for row in size["sources"]:
        whole[row["source"]] += row["characters"]
        splits[row["split"]].update({unit: row[unit] for unit in units})
    by_split = [[split, *(own[unit] for unit in units)] for split, own in splits.items()]
    if len(splits) > 1:
        by_split.append(["all", *(size[unit] for unit in units)])
    by_source = [
        [code(row["source"]), row["split"], row["rows"], row["characters"], f"{row['share']:.1%}"]
        + [f"{row[name]:,.0f}" for name in ("median", "p90")]
        + ([row["tokens"]] if named else [])
        for row in sorted(size["sources"], key=lambda row: (-whole[row["source"]], row["source"]))
    ]
    head = ["source", "split", "rows", "characters", "share", "median", "p90", *units[2:]]
    counted = (
        f"Tokens are those of {code(named['name'])} (sha256 of its tokenizer.json: `{named['sha256'][:16]}…`), of the "
        "texts alone, without the marks of a chat template."
        if named
        else "Sizes are in characters only, for the recipe names no `tokenizer`."
    )
    return [
        *table(["split", *units], by_split),
        f"{counted} Characters are Unicode code points of all texts of a row. Below, share is of all characters, and "
        "median and 90th percentile are the characters of a row.",
        *table(head, by_source, left=2),
    ]


def _plot(found: Finished, name: str) -> list[str]:
    return [f"![{PLOTS[name]}]({name})", ""] if name in found.manifest["files"] else []


def _free(sources: list[Licensed]) -> set[str]:
    return {source.name for source in sources if source.asks is not None}


def _shown(sources: list[Licensed]) -> str:
    kept = len(_free(sources)) < len(sources) and _free(sources)
    return "; rows are shown of sources that may be passed on" if kept else ""


def _examples(found: Finished, sources: list[Licensed]) -> list[dict[str, Any]]:
    """The first row of each of the largest sources that may be passed on, or of any where none may."""
    size = {source.name: source.rows for source in sources}
    wanted = sorted(_free(sources) or size, key=lambda name: (-size[name], name))[:EXAMPLES]
    rows: dict[str, dict[str, Any]] = {}
    for _, batch in statistics.batches(found, _LOOK):
        for name in [name for name in wanted if name not in rows]:
            place = batch["source"].index(name).as_py()
            if place >= 0:
                rows[name] = batch.slice(place, 1).to_pylist()[0]
        if len(rows) == len(wanted):
            break
    return [rows[name] for name in wanted if name in rows]


def _limits(manifest: dict[str, Any]) -> list[str]:
    facts, rows = manifest["from_facts"], manifest["size"]["rows"]
    made = f"{facts:,} of the {rows:,} rows ({facts / rows:.0%}) are facts of knowledge graphs put into sentences by "
    told = [f"{made}templates: correct Chinese, but of few patterns."] if facts else []
    return [*told, *LIMITS[manifest["stage"]], *LIMITS["all"]]


def _load(found: Finished) -> list[str]:
    split = next(iter(found.manifest["rows"]))
    return [
        "## Load",
        "",
        "From the folder that this card stands in; from the Hub, name the repository and the stage instead,",
        f'`load_dataset("ORG/NAME", "{found.stage}")`:',
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset("out/{found.stage}", split="{split}")',
        f'stream = load_dataset("out/{found.stage}", split="{split}", streaming=True)  # reads rows as they are used',
        "print(rows[0])",
        "for row in stream:  # to its end: Arrow may abort a Python that ends amid a stream (apache/arrow#45214)",
        "    ...",
        "```",
        "",
    ]


def _rebuild(manifest: dict[str, Any]) -> list[str]:
    commit = f", commit `{manifest['commit']}`" if manifest["commit"] else ""
    default = _default_recipe() == manifest["recipe_digest"]
    recipe = (
        "The recipe is the default one"
        if default
        else "RECIPE is what `manifest.json` has under `recipe`, in a file beside those that it names"
    )
    return [
        "## Rebuild",
        "",
        "```bash",
        f"chimed build --stage {manifest['stage']} --raw RAW{'' if default else ' --recipe RECIPE'} --out out",
        "```",
        "",
        f"By chimed {manifest['versions']['chimed']}{commit}. {recipe}; digest of the recipe:",
        f"`{manifest['recipe_digest']}`.",
        "RAW holds a folder of raw files for each source; without `--raw`, the sample that comes with chimed is built.",
        "The same recipe and raw files give the same bytes; `manifest.json` has each file's sha256, the versions of",
        "the libraries, and what became of each raw file; `chimed why ID` says it of each row.",
    ]


@cache
def _default_recipe() -> str:
    """The digest of the recipe that comes with chimed."""
    return load_recipe().digest
