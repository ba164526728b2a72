"""The exams of a recipe as tasks of lm-eval, which its own models answer without a line of this package's code.

    <name>.jsonl             the items of a set in an arm: prompt, what is chosen among, and the key
    <name>_letters.yaml      the likeliest letter: the accuracy of `qilin eval`
    <name>_sets.yaml         the likeliest set of letters with its end of turn: the accuracy of `qilin eval`
    <name>_generation.yaml   a free reply, read by a regular expression: lower than `qilin eval`, see below
    README.md                how to run them

Prompts are written out with the chat template of the recipe's model, passages and solved examples included, so the
tasks fit models of that template alone, and no option of lm-eval may add to them. Nothing in a task is code: no
`!function`. That is why a reply is read by one expression, which knows 答案是B, 选 B 和 D and a bare B, but not options
named by their text, negations or changes of mind; the letters of `qilin eval` need `qilin.evaluate.extract`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qilin import models
from qilin.errors import RecipeError, RunError
from qilin.evaluate import prompt
from qilin.evaluate.local import Encoding
from qilin.evaluate.prompt import STOP_OF_PLAIN
from qilin.evaluate.questions import Asked, candidates, questions
from qilin.evaluate.recipe import Method, Recipe

_LETTERS = r"([A-J](?:[、,，/和及与\s]*[A-J])*)(?![A-Za-z0-9])"
# What follows a word for the answer; else letters that stand before anything else.
_REPLY = rf"(?:答案|[应故选]选|选择|选项?|[Aa]nswer)(?:\s|是|为|应该?|选项?|[:：*\[【(（])*{_LETTERS}|^\W*{_LETTERS}"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    tasks: their names. items: of each. other: prompts that lm-eval reads as other tokens than `qilin eval` does, since
    they hold a control token as text. long: prompts that do not fit the model with their longest candidate: lm-eval
    cuts their beginning off, `qilin eval` counts them as failures.
    """

    folder: Path
    tasks: tuple[str, ...]
    items: Mapping[str, int]
    other: int
    long: int

    def __str__(self) -> str:
        told = {"are read as other tokens by lm-eval": self.other, "do not fit the model": self.long}
        doubts = "".join(f"; {count:,} prompts {what}" for what, count in told.items() if count)
        return f"{self.folder}: {len(self.tasks)} tasks ({', '.join(self.tasks)}){doubts}"


def export(recipe: Recipe, out: Path) -> Exported:
    """Write the exams of a recipe, in each of its arms, as tasks of lm-eval.

    Raises RecipeError for a recipe without a model, whose chat template the prompts need, or without exam items,
    RunError for a folder that holds something, DataError and ModelError for what cannot be read.
    """
    if recipe.model is None:
        raise RecipeError("model", ["is missing; tasks hold prompts as a model's chat template writes them"])
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty; give a new folder")
    reading = Encoding(models.load_tokenizer(recipe.model, "cpt"))
    room = int(models.read_config(recipe.model.path).get_text_config().max_position_embeddings)
    asked: dict[str, list[Asked]] = {}
    for one in questions(recipe).asked:
        if one.item.kind == "exam" and one.number == 0:
            asked.setdefault(f"qilin_{one.set.replace('/', '_')}_{one.arm}", []).append(one)
    if not asked:
        raise RecipeError("data.sets", [f"{', '.join(recipe.data.sets)}: no exam items; open questions make no task"])
    out.mkdir(parents=True, exist_ok=True)
    tasks, doubts = [], [0, 0]
    for name, own in asked.items():
        rows = [_row(one, reading) for one in own]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        for row, one in zip(rows, own, strict=True):
            for place, doubt in enumerate(_doubts(row, one, reading, room)):
                doubts[place] += doubt
        for method in recipe.exam.methods:
            tasks.append(f"{name}_{method}")
            task = yaml.safe_dump(_task(name, method, recipe, reading), allow_unicode=True, sort_keys=False, width=1000)
            (out / f"{name}_{method}.yaml").write_text(task, encoding="utf-8")
    found = Exported(out, tuple(tasks), {name: len(own) for name, own in asked.items()}, *doubts)
    (out / "README.md").write_text("\n".join(_readme(recipe, found)) + "\n", encoding="utf-8")
    return found


def _row(one: Asked, reading: Encoding) -> dict[str, Any]:
    return {
        "id": one.item.id,
        "prompt": reading.text(one.prompt),
        "letters": list(candidates(one.item, "letters")),
        "sets": [chosen + reading.end for chosen in candidates(one.item, "sets")],
        "answer": one.item.answer,
        "set": one.item.answer + reading.end,
    }


def _doubts(row: Mapping[str, Any], one: Asked, reading: Encoding, room: int) -> Iterator[bool]:
    """Whether lm-eval reads other tokens here, and whether they are too many."""
    longest = max(row["sets"], key=len)
    ids = [*reading.prompt(one.prompt), *reading.reply(longest)]
    yield reading.tokenizer.encode(row["prompt"] + longest, add_special_tokens=False) != ids
    yield len(ids) > room
    reading.forget()


def _task(name: str, method: Method, recipe: Recipe, reading: Encoding) -> dict[str, Any]:
    task: dict[str, Any] = {
        "task": f"{name}_{method}",
        "tag": "qilin",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
        "test_split": "test",
        "doc_to_text": "prompt",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metadata": {"version": 1.0, "frame_sha256": prompt.digest(), "recipe_sha256": recipe.digest},
    }
    if method != "generation":
        fields = {"letters": ("letters", "answer"), "sets": ("sets", "set")}
        choices, target = fields[method]
        task |= {"output_type": "multiple_choice", "doc_to_choice": choices, "doc_to_target": target}
        return task | {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    until = [reading.end] if reading.template else [STOP_OF_PLAIN]
    expression = {"function": "regex", "regex_pattern": _REPLY, "group_select": 0, "fallback": ""}
    counted = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    return task | {
        "output_type": "generate_until",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": until, "max_gen_toks": recipe.max_new_tokens, "do_sample": False},
        "filter_list": [{"name": "letters", "filter": [expression, {"function": "take_first"}]}],
        "metric_list": [{**counted, "regexes_to_ignore": [r"[、,，/和及与\s]"]}],
    }


def _readme(recipe: Recipe, found: Exported) -> Sequence[str]:
    assert recipe.model is not None
    about = (
        f"Prompts are written with the chat template of {recipe.model.path}: run them as they stand, in this folder, "
        "without `--apply_chat_template`, `--system_instruction` and `--num_fewshot`."
    )
    model = f"pretrained={recipe.model.path},dtype={recipe.model.dtype},add_bos_token=False"
    return [
        "# Exams as tasks of lm-eval",
        "",
        about,
        "",
        "```bash",
        f"lm_eval --model hf --model_args {model} \\\n  --include_path . --tasks {','.join(found.tasks)}",
        "```",
        "",
        *(f"- `{name}`: {count:,} items" for name, count in found.items.items()),
        f"- read as other tokens by lm-eval, since a control token stands in their text: {found.other:,} prompts",
        f"- too long for the model, so that lm-eval cuts their beginning off: {found.long:,} prompts",
        "",
        "The accuracy of `letters` and `sets` is that of `qilin eval`. Items of several answers are wrong by "
        "`letters`; lm-eval warns of each. `generation` reads replies by one regular expression and is no more than a "
        "rough figure: `qilin eval` reads what it cannot.",
        "",
        "Not for clinical use.",
    ]
