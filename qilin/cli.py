"""The command line of qilin. Heavy imports stand inside the commands: `qilin --help` answers at once."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from qilin.errors import QilinError, RecipeError

app = typer.Typer(
    name="qilin",
    help="Train and score Qilin-Med on the data sets that `chimed` builds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class ShardingName(StrEnum):
    """How several GPUs share what they hold."""

    ddp = "ddp"
    zero2 = "zero2"
    zero3 = "zero3"
    fsdp2 = "fsdp2"


class DtypeName(StrEnum):
    """The type of a weight."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class WordsName(StrEnum):
    """What BM25 counts."""

    bigrams = "bigrams"
    rjieba = "rjieba"


class ModeName(StrEnum):
    """How passages are searched."""

    bm25 = "bm25"
    dense = "dense"
    fusion = "fusion"


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Training recipe (YAML).")]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes that tokenise; default: one a core.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CORES = os.cpu_count() or 1


@app.command()
def prepare(recipe: RecipeFile, workers: Workers = CORES, as_json: Json = False) -> None:
    """Tokenise and pack a recipe's data once, to a folder that training maps into memory."""
    from dataclasses import asdict

    from qilin.recipe import load_recipe

    said = load_recipe(recipe)
    _quiet()
    from qilin.models import load_tokenizer
    from qilin.prepare import prepare as run

    tokenizer = load_tokenizer(said.model, said.stage)
    with _bar() as progress:
        done = run(said, tokenizer, workers=workers, progress=progress)
    splits = {name: asdict(counts) for name, counts in done.splits.items()}
    if as_json:
        _print_json({"folder": str(done.folder), "digest": done.digest, "splits": splits})
        return
    typer.echo(str(done.folder))
    for name, counts in splits.items():
        typer.echo(f"  {name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items() if key != "fill"))


@app.command()
def plan(
    recipe: RecipeFile,
    gpu: Annotated[str, typer.Option(metavar="NAME", help="GPU to estimate the time on, such as H100 or 4090.")] = "",
    gpus: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    sharding: Annotated[ShardingName, typer.Option(help="How they share what they hold.")] = ShardingName.ddp,
    workers: Workers = CORES,
    as_json: Json = False,
) -> None:
    """Say what a run will do before it runs: rows, losses, steps, the loss mask, parameters, memory and time."""
    from qilin.flops import GPUS, find_gpu
    from qilin.recipe import load_recipe

    said, named = load_recipe(recipe), find_gpu(gpu) if gpu else None
    if gpu and named is None:
        raise RecipeError("--gpu", [f"found {gpu!r}; known are {', '.join(GPUS)}"])
    _quiet()
    from rich.console import Console

    from qilin.plan import Hardware, show
    from qilin.plan import plan as run

    with _bar() as progress:
        found = run(said, recipe, Hardware(named, gpus, sharding.value), workers=workers, progress=progress)
    _print_json(found.json()) if as_json else show(found, Console())


@app.command()
def train(recipe: RecipeFile, as_json: Json = False) -> None:
    """Train a stage; a run that was stopped goes on from its last checkpoint."""
    from qilin.recipe import load_recipe

    said = load_recipe(recipe)
    from qilin.train import train as run

    folder = run(said, recipe)
    if as_json:
        typer.echo((folder / "run.json").read_text(encoding="utf-8"), nl=False)


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run with an adapter.")],
    out: Annotated[Path, typer.Option(help="New folder for the merged model.")],
    dtype: Annotated[DtypeName, typer.Option(help="What the merged weights are written in.")] = DtypeName.bfloat16,
    as_json: Json = False,
) -> None:
    """Merge an adapter into its base in 32 bits, compare their logits, and write a model that vLLM loads."""
    from dataclasses import asdict

    _quiet()
    from qilin.merge import merge as join

    done = join(run, out, dtype.value)
    _print_json(asdict(done)) if as_json else typer.echo(str(done))


@app.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a Baichuan 1 or 2 model.")],
    out: Annotated[Path, typer.Option(help="New folder for the same model in the Llama architecture.")],
) -> None:
    """Turn a Baichuan model into one that transformers knows, without running its code."""
    _quiet()
    from qilin.baichuan import import_model

    import_model(folder, out)
    typer.echo(str(out))


@app.command()
def index(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The rag stage of a build, such as out/rag.")],
    out: Annotated[Path, typer.Option(help="Folder of the index; one that is there is brought up to date.")],
    eval_data: Annotated[
        Path | None, typer.Option("--eval", help="The eval stage whose items must not be found, such as out/eval.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Sentence-transformers model; default: BM25 alone.")
    ] = None,
    words: Annotated[WordsName, typer.Option(help="What BM25 counts: pairs of characters, or words.")] = (
        WordsName.bigrams
    ),
    as_json: Json = False,
) -> None:
    """Index passages for retrieval; the same command again adds what is new, and goes on after a break."""
    from dataclasses import asdict

    _quiet()
    from qilin.rag.index import build

    with _bar() as progress:
        done = build(data, out, encoder=encoder, words=words.value, eval_data=eval_data, progress=progress)
    _print_json(asdict(done)) if as_json else typer.echo(str(done))


@app.command()
def ask(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder of a model.")],
    index: Annotated[Path, typer.Option(help="Folder that `qilin index` wrote.")],
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What is asked.")] = None,
    mode: Annotated[
        ModeName | None, typer.Option(help="Search by words, by vectors, or both; default: the best.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Passages to show the model.")] = 3,
    web: Annotated[bool, typer.Option("--web", help="Answer questions on a page of this computer instead.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8000,
    as_json: Json = False,
) -> None:
    """Answer a question from retrieved passages, with citations that are checked. Not for clinical use."""
    if (question is None) != web:
        raise RecipeError("qilin ask", ["give a question, or --web, and not both"])
    _quiet()
    from qilin.ask import open_asker, show

    with _waiting("Loading the model"):
        asker = open_asker(model, index, mode=mode.value if mode else None, k=k)
    if question is None:
        from qilin.web import serve

        serve(asker, port)
        return
    from dataclasses import asdict

    with _waiting("Answering"):
        found = asker.ask(question)
    _print_json(asdict(found)) if as_json else typer.echo(show(found))


@app.command(name="eval")
def eval_(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Evaluation recipe (YAML).")], as_json: Json = False
) -> None:
    """Score a model on exams and open questions; what was answered before is not asked again."""
    from qilin.evaluate.recipe import load_recipe

    said = load_recipe(recipe)
    _quiet()
    from qilin.evaluate.run import evaluate

    with _bar() as progress:
        folder = evaluate(said, progress)
    typer.echo((folder / ("result.json" if as_json else "report.md")).read_text(encoding="utf-8"), nl=False)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished evaluations, in order.")],
    as_json: Json = False,
) -> None:
    """Set evaluations of the same questions side by side, each against the one before it, item by item."""
    from qilin.evaluate.compare import compare as run
    from qilin.evaluate.compare import markdown

    found = run(runs)
    _print_json(found) if as_json else typer.echo(markdown(found), nl=False)


@app.command()
def tasks(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Evaluation recipe (YAML).")],
    out: Annotated[Path, typer.Option(help="New folder for the task files.")],
    as_json: Json = False,
) -> None:
    """Write a recipe's exams as tasks of lm-eval: YAML and JSON lines, without code."""
    from dataclasses import asdict

    from qilin.evaluate.recipe import load_recipe

    said = load_recipe(recipe)
    _quiet()
    from qilin.evaluate.tasks import export

    done = export(said, out)
    _print_json(asdict(done)) if as_json else typer.echo(str(done))


def _quiet() -> None:
    """Take away what libraries say to their own developers and users of their next version; telemetry stays off."""
    import logging
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def _bar() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on a terminal's standard error; silent anywhere else."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def step(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield step


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """A sign of life on a terminal's standard error; silent anywhere else."""
    from rich.console import Console

    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"qilin {version('chimed')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(run: Callable[[], Any] = app) -> None:
    """Entry point: an error a user can mend is one sentence and exit code 2; anything else is a bug and a traceback."""
    try:
        run()
    except QilinError as error:
        print(f"qilin: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("qilin: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
