"""The model card of a run: where it comes from, what it learned from, how it did, what it must not be used for."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

STAGES = {
    "cpt": ("continued pre-training", "passages, each with loss on all its tokens"),
    "sft": ("supervised fine-tuning", "conversations, with loss on the assistant's replies and their ends alone"),
    "dpo": ("direct preference optimisation", "pairs of a chosen and a rejected reply to the same prompt"),
}
LIMITS = """\
**Not for clinical use.** This is a research model. It has been examined by no clinician, it can state falsehoods with
confidence, and nothing it says is a diagnosis, a prescription or medical advice. Do not put it before patients, and do
not let it decide anything about a person.

- It learned from public Chinese texts: textbooks, guidelines, exams, knowledge graphs and online consultations. What
  they get wrong, it gets wrong; what is newer than they are, it does not know. Doses and drug names are no exception.
- Held-out numbers below are losses on rows of the same sources. They say that it learned these, not that it is right:
  scores on exams and of answers come from an evaluation of their own.
- Rows that overlap the evaluation sets were taken out by `chimed build`; what the base model had read before, nobody
  here knows.
- Personal data were masked by rules, which miss some."""


def card(done: Mapping[str, Any]) -> str:
    """The card as Markdown, from what `run.json` says and nothing else: the same run gives the same card."""
    return "\n".join([*_front(done), "", *_body(done)]) + "\n"


def _front(done: Mapping[str, Any]) -> Iterator[str]:
    yield "---"
    yield "language: zh"
    yield "library_name: " + ("peft" if done["kind"] == "adapter" else "transformers")
    yield "pipeline_tag: text-generation"
    yield f"base_model: {json.dumps(done['recipe']['model']['path'], ensure_ascii=False)}"
    yield f"tags: [medical, chinese, chimed, qilin, {done['stage']}{', lora' if done['kind'] == 'adapter' else ''}]"
    yield "---"


def _body(done: Mapping[str, Any]) -> Iterator[str]:
    name, rows = STAGES[done["stage"]]
    what = "An adapter (LoRA)" if done["kind"] == "adapter" else "A model, all weights trained"
    yield f"# {what}: {name} on ChiMed"
    yield ""
    yield LIMITS
    yield ""
    yield "## Results on held-out rows"
    yield ""
    yield from _results(done)
    yield ""
    yield "## Lineage"
    yield ""
    yield from _table(("step", "from", "weights or data (sha256)", "chat template"), _lineage(done))
    yield ""
    yield "## Data"
    yield ""
    yield f"{rows[0].upper()}{rows[1:]}; built by `chimed build`, manifest digest `{done['data']['digest']}`."
    yield ""
    yield from _table(
        ("split", "documents", "packed rows", "tokens", "with loss", "dropped for length", "truncated"), _splits(done)
    )
    yield ""
    yield "## Training"
    yield ""
    yield from _table(("", ""), _facts(done))
    yield ""
    yield "The recipe, whole:"
    yield ""
    yield "```json"
    yield json.dumps(done["recipe"], ensure_ascii=False, indent=1)
    yield "```"


def _results(done: Mapping[str, Any]) -> Iterator[str]:
    words = {
        "loss": "loss",
        "perplexity": "perplexity",
        "mean_token_accuracy": "token accuracy",
        "preferred": "pairs whose chosen reply is likelier",
        "preferred_per_token": "the same, a token",
        "rewards/margins": "reward margin",
        "logps/chosen": "log-probability of the chosen reply",
        "logps/rejected": "log-probability of the rejected reply",
    }
    rows = [
        (split, word, f"{done['start'].get(split, {}).get(key, float('nan')):.4g}", f"{numbers[key]:.4g}")
        for split, numbers in done["end"].items()
        for key, word in words.items()
        if key in numbers
    ]
    if not rows:
        yield "The data hold no held-out rows: nothing is known about how it does on rows that it did not train on."
        return
    yield from _table(("split", "", "before", "after"), rows)
    yield ""
    yield "![curves](curves.png)"
    if "general" in done["end"]:
        yield ""
        yield "`general` is general text: what it loses there, the model forgot."


def _lineage(done: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for step in [*done["lineage"]["parents"], done["lineage"]]:
        digest = step.get("model") or step.get("data") or ""
        yield step.get("stage", ""), f"`{step.get('path', '')}`", _brief(digest), _brief(step.get("template") or "")


def _brief(digest: str) -> str:
    return f"`{digest[:16]}`" if digest else ""


def _splits(done: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for split, counts in done["prepared"]["splits"].items():
        names = ("documents", "rows", "tokens", "trained", "dropped", "truncated")
        yield split, *(f"{counts[name]:,}" for name in names)


def _facts(done: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    size = done["parameters"]
    yield "parameters", f"{size['all']:,}, of which trained {size['trained']:,}"
    yield "steps", f"{done['steps']:,}"
    yield "tokens seen", f"{done['tokens']:,}"
    speed = f"{done['tokens_per_second']:,.0f} tokens/s"
    yield "time", f"{done['seconds']:,.0f} s at {speed} on {done['device']} x {done['processes']}"
    if done["mfu"] is not None:
        yield "MFU", f"{done['mfu']:.1%}"
    yield "seed", str(done["seed"])
    yield "weights (sha256)", f"`{done['weights']}`"
    yield "tokenizer (sha256)", f"`{done['identity']['tokenizer']}`"
    yield "versions", ", ".join(f"{name} {version}" for name, version in done["versions"].items())


def _table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
