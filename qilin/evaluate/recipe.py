"""The evaluation recipe: YAML in, a typed and closed `Recipe` out; every fault is reported at once."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from qilin import recipe as training
from qilin.closed import Closed, block, load

Method = Literal["letters", "sets", "generation"]
Baseline = Literal["random", "constant", "oracle"]
Arm = Literal["closed", "rag", "oracle", "random"]
_SET = re.compile(r"[\w.-]+/[\w.-]+")


class Server(Closed):
    """A server that speaks OpenAI's chat completions; its key, if it wants one, stands in OPENAI_API_KEY.

    url: the whole address, such as http://localhost:8000/v1/chat/completions. name: the model, as the server calls it.
    timeout: seconds an answer may take. retries: further tries before an item counts as failed.
    """

    url: Annotated[str, Field(pattern=r"^https?://")]
    name: Annotated[str, Field(min_length=1)]
    timeout: Annotated[float, Field(gt=0)] = 300
    retries: Annotated[int, Field(ge=0)] = 2


class Data(Closed):
    """What is asked.

    path: the eval stage of a build. sets: such as cmexam/test. rows: at most so many of each set, or by set, chosen by
    the seed; None, and of sets that are not named, takes all. disciplines: by set, the disciplines that are asked, such
    as the medical subjects of cmmlu/test.
    """

    path: Path
    sets: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Annotated[int, Field(gt=0)] | dict[str, Annotated[int, Field(gt=0)]] | None = None
    disciplines: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)


class Texts(Closed):
    """Held-out passages whose likelihood is measured.

    sets: by name, the cpt stage whose validation rows are read. rows: at most so many of each, chosen by the seed.
    length: tokens that are read at once.
    """

    sets: Annotated[dict[str, Path], Field(min_length=1)]
    rows: Annotated[int, Field(gt=0)] | None = None
    length: Annotated[int, Field(ge=16)] = 1024


class Exam(Closed):
    """How questions with options are asked.

    methods: `letters`, the likeliest single letter; `sets`, the likeliest set of letters with its end of turn;
    `generation`, the letters read from a free reply. shots: solved examples before each question, drawn by the seed
    from `shots_from`, a set that is not scored. permutations: further orders of the options to ask in.
    """

    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("letters", "sets", "generation")
    shots: Annotated[int, Field(ge=0)] = 0
    shots_from: str | None = None
    permutations: Annotated[int, Field(ge=0)] = 0


class Open(Closed):
    """How replies to open questions are scored: the modes of `qilin.evaluate.answers`."""

    metrics: Annotated[tuple[Literal["zh", "paper", "llamafactory"], ...], Field(min_length=1)] = ("zh",)


class Rag(Closed):
    """Passages before the question.

    index: a folder that `qilin index` wrote. k: passages a question. budget: characters they may take together.
    leaked: whether passages that hold an evaluation item are searched too; a run with them shows what they are worth.
    """

    index: Path
    mode: Literal["bm25", "dense", "fusion"] = "bm25"
    k: Annotated[int, Field(gt=0)] = 3
    budget: Annotated[int, Field(gt=0)] = 1200
    leaked: bool = False


class Recipe(Closed):
    """An evaluation: one of a model, a server or a baseline; the questions; how they are asked and scored.

    baseline: answers without reading. `random` draws among what a method lets it say, `constant` always says A,
    `oracle` knows the key: what a score is worth is seen beside them.
    arms: `closed` asks without passages, `rag` with retrieved ones, `oracle` with the item's own explanation, `random`
    with passages drawn blindly.
    max_new_tokens: of a generated reply. batch_size: prompts in one forward pass.
    """

    stage: Literal["eval"]
    model: training.Model | None = None
    server: Server | None = None
    baseline: Baseline | None = None
    data: Data
    exam: Exam = Exam()
    open: Open = Open()
    rag: Rag | None = None
    texts: Texts | None = None
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ("closed",)
    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    batch_size: Annotated[int, Field(gt=0)] = 8
    seed: int = 42
    output_dir: Path

    @property
    def digest(self) -> str:
        """sha256 of what the recipe says, whatever folder it writes to."""
        text = json.dumps(self.model_dump(mode="json", exclude={"output_dir"}), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file; its paths are relative to the current folder. Raises RecipeError with every fault."""
    return load(path, Recipe, _together)


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _together(data: Mapping[Any, Any]) -> Iterator[str]:
    """Faults of values that are right one by one."""
    answerers = [name for name in ("model", "server", "baseline") if data.get(name) is not None]
    if len(answerers) != 1:
        yield f"model, server, baseline: give exactly one, found {' and '.join(answerers) or 'none'}"
    exam, sets = block(data, "exam"), _texts(block(data, "data").get("sets"))
    source = exam.get("shots_from")
    for name in (*sets, *([source] if isinstance(source, str) else [])):
        if not _SET.fullmatch(name):
            yield f"found the set {name!r}; a set is a source and a split, such as cmexam/test"
    once = {
        "data.sets": sets,
        "exam.methods": _texts(exam.get("methods")),
        "open.metrics": _texts(block(data, "open").get("metrics")),
        "arms": _texts(data.get("arms")),
    }
    for key in ("disciplines", "rows"):
        for name in block(block(data, "data"), key):
            if name not in sets:
                yield f"data.{key}: {name} is none of data.sets"
    if data.get("texts") is not None and data.get("model") is None:
        yield "texts: only a model in `model` says how likely a text is"
    for where, named in once.items():
        if twice := sorted({name for name in named if named.count(name) > 1}):
            yield f"{where}: {', '.join(twice)} stands there twice"
    if exam.get("shots") and not source:
        yield "exam.shots_from: is missing; shots are drawn from a set such as cmexam/validation"
    if source in sets:
        yield f"exam.shots_from: {source} is scored itself; draw shots from another set"
    if data.get("server") is not None and set(_texts(exam.get("methods", list(get_args(Method))))) != {"generation"}:
        yield "exam.methods: a server gives replies, no likelihoods; write `methods: [generation]`"
    if set(_texts(data.get("arms"))) & {"rag", "random"} and not isinstance(data.get("rag"), dict):
        yield "rag: is missing; the arms rag and random need the index of `qilin index`"
