"""The card of a repository that holds a whole build: a configuration a stage, its sources, what their licences ask."""

from collections.abc import Sequence
from typing import Any

import yaml

from chimed.publish import card
from chimed.publish.finished import Finished
from chimed.publish.licences import Licensed, terms
from chimed.publish.markdown import code, link, table, words
from chimed.records import SPLITS


def front(stages: Sequence[Finished], sources: list[Licensed]) -> dict[str, Any]:
    """The front matter: what the cards of the stages say, together."""
    fronts = [card.front(stage) for stage in stages]
    together = {
        name: list(dict.fromkeys(value for own in fronts for value in own[name]))
        for name in ("language", "task_categories", "tags")
    }
    licence = card.licence_front(sources)
    licence.pop("license_link", None)  # the card itself tells the licences
    configs = []
    for stage in stages:
        files = [{"split": split, "path": f"{stage.stage}/{split}-*.parquet"} for split in stage.shards()]
        configs.append({"config_name": stage.stage, "data_files": files})
    rows = sum(sum(stage.manifest["rows"].values()) for stage in stages)
    size = {"size_categories": [card.size_category(rows)]}
    return {**together, **licence, **size, "pretty_name": "ChiMed", "configs": configs}


def collection_card(stages: Sequence[Finished], sources: list[Licensed], repo: str) -> str:
    """The card of the repository in the Hub's format: its stages, its sources, and what their licences ask."""
    counted = [
        [
            stage.stage,
            *(f"{stage.manifest['rows'][split]:,}" if split in stage.manifest["rows"] else "" for split in SPLITS),
            f"[{stage.stage}]({stage.stage}/README.md)",
            stage.manifest["digest"][:12],
        ]
        for stage in stages
    ]
    listed = []
    for source in sources:
        asks = "no right to pass it on was found" if source.asks is None else "; ".join(source.asks) or "nothing"
        what = f"{code(source.name)} {link(source.title, source.homepage)}"
        listed.append([what, f"{source.rows:,}", words(source.license), asks])
    lines = [
        "---",
        yaml.safe_dump(front(stages, sources), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        "# ChiMed",
        "",
        "Chinese medical data for language models, built by `chimed` from public sources.",
        "",
        "**Not for clinical use.** The text comes from websites, exams, textbooks and language models; it holds errors",
        "and outdated advice. Neither it nor a model trained on it may be used to diagnose, treat or advise a patient.",
        *table(["configuration", *SPLITS, "card", "digest"], counted),
        "## Licences",
        "",
        "Every row keeps the licence of its source, which its column `source` names. Together:",
        "",
        *(f"- {sentence}" for sentence in terms(sources)),
        *table(["source", "rows", "licence as published", "asks"], listed),
        "```python",
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset("{repo}", "{stages[0].stage}")',
        "```",
    ]
    return "\n".join(lines) + "\n"
