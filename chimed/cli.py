"""The command line of chimed. Heavy imports stand inside the commands: `chimed --help` answers at once."""

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from chimed.errors import ChimedError

app = typer.Typer(
    name="chimed",
    help="Rebuild the Chinese medical corpus ChiMed from its public sources, as datasets for each training stage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class StageName(StrEnum):
    """A stage, or all of them."""

    cpt = "cpt"
    sft = "sft"
    dpo = "dpo"
    eval = "eval"
    rag = "rag"
    all = "all"


Out = Annotated[Path, typer.Option(help="Folder of the build.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def build(
    stage: Annotated[list[StageName], typer.Option(help="Stage to build; may be given more than once.")],
    raw: Annotated[
        Path | None,
        typer.Option(help="Folder with a folder of raw files for each source; default: the embedded sample."),
    ] = None,
    out: Out = Path("out"),
    recipe: Annotated[Path | None, typer.Option(help="Build recipe (YAML); default: all sources.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; default: one a core.")] = os.cpu_count() or 1,
    as_json: Json = False,
) -> None:
    """Build stage datasets from raw files, or from the embedded sample corpus."""
    from chimed import summary
    from chimed.build import Request
    from chimed.build import build as run
    from chimed.recipe import load_recipe
    from chimed.sources.spec import STAGES

    names = STAGES if StageName.all in stage else tuple(dict.fromkeys(name.value for name in stage))
    request = Request(load_recipe(recipe), recipe, raw, out, names, workers)
    with summary.Bars() as progress:
        outcome = run(request, progress)
    if as_json:
        _print_json(outcome.stages)
    else:
        summary.show_outcome(outcome, request)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Sources, as chimed sources lists them.")],
    raw: Annotated[Path, typer.Option(help="Folder that gets a folder of raw files for each source.")],
    as_json: Json = False,
) -> None:
    """Download raw files from where upstream publishes them; the same command goes on after a break."""
    from dataclasses import asdict

    from chimed import summary
    from chimed.sources.fetch import check, named
    from chimed.sources.fetch import fetch as bring

    chosen = named(names)
    if not as_json:
        summary.show_licences(chosen)
    with summary.Bars() as progress:
        found = [entry for source in chosen for entry in bring(source, raw, progress.step)]
    _print_json([asdict(entry) for entry in found]) if as_json else summary.show_fetched(found)
    check(found)


@app.command()
def sources(
    raw: Annotated[Path | None, typer.Option(help="Folder with raw files: say which sources are there.")] = None,
    as_json: Json = False,
) -> None:
    """List the sources: shape, stages, licence, home page, and whether their files are there."""
    from chimed import summary

    listed = summary.sources(raw)
    _print_json(listed) if as_json else summary.show_sources(listed)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Folder of a stage, such as out/sft.")],
    rows: Annotated[int, typer.Option(min=0, help="How many rows to print.")] = 3,
    seed: Annotated[int, typer.Option(help="Which rows: another seed shows others.")] = 0,
    as_json: Json = False,
) -> None:
    """Show what a stage's folder holds, and some of its rows."""
    from chimed import summary

    manifest, sample = summary.sample(folder, rows, seed)
    _print_json({"manifest": manifest, "rows": sample}) if as_json else summary.show_stage(folder, manifest, sample)


@app.command()
def why(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of a row: source/file#row.")],
    out: Out = Path("out"),
    as_json: Json = False,
) -> None:
    """Say what became of an input row, and why."""
    from chimed import summary

    found = summary.explain(out, name)
    _print_json(found) if as_json else summary.show_explained(found)


def _print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"chimed {version('chimed')}")
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
    except ChimedError as error:
        print(f"chimed: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("chimed: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
