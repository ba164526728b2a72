"""The command line of chimed. Heavy imports stand inside the commands: `chimed --help` answers at once."""

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from chimed.errors import ChimedError
from chimed.remote import Store, is_url

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


class FormatName(StrEnum):
    """A format to export to."""

    released = "released"
    llama_factory = "llama-factory"
    axolotl = "axolotl"
    ms_swift = "ms-swift"
    openai = "openai"
    text = "text"


class _Command(typer.core.TyperCommand):
    """A command whose paths are paths: a URL among them would make a folder named `s3:`."""

    def invoke(self, ctx: Any) -> Any:
        for value in ctx.params.values():
            for one in value if isinstance(value, list | tuple) else (value,):
                if isinstance(one, Path) and is_url(one):
                    raise ChimedError(
                        f"{str(one).partition(':')[0]}://: a folder is needed here; URLs are for --raw and --out of "
                        "chimed build alone, so mount the store, or copy from it"
                    )
        return super().invoke(ctx)


Out = Annotated[Path, typer.Option(help="Folder of the build.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@contextmanager
def _loading() -> Iterator[None]:
    """Modules load faster while nobody looks for cycles among what they define, now or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@app.command(cls=_Command)
def build(
    stage: Annotated[list[StageName], typer.Option(help="Stage to build; may be given more than once.")],
    raw: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Folder or URL with a folder of raw files for each source; default: the embedded sample.",
        ),
    ] = None,
    out: Annotated[str, typer.Option(metavar="PATH", help="Folder or URL of the build.")] = "out",
    recipe: Annotated[Path | None, typer.Option(help="Build recipe (YAML); default: all sources.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; default: one a core.")] = os.cpu_count() or 1,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use the cores of a Ray cluster: its address, or auto."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Leave out what a build in DIR has already; may be given more than once."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build stage datasets from raw files, or from the embedded sample corpus."""
    with _loading():
        from chimed import summary
        from chimed.bars import Bars
        from chimed.build import Request
        from chimed.build import build as run
        from chimed.recipe import load_recipe
        from chimed.sources.spec import STAGES

    names = STAGES if StageName.all in stage else tuple(dict.fromkeys(name.value for name in stage))
    brought, sent = (Store(place) if place and is_url(place) else None for place in (raw, out))
    raw_folder = brought.root if brought else None if raw is None else Path(raw)
    out_folder = sent.root if sent else Path(out)
    if ray:  # workers of other machines start in folders of their own
        raw_folder, out_folder = raw_folder and raw_folder.absolute(), out_folder.absolute()
        recipe, against = recipe and recipe.absolute(), [folder.absolute() for folder in against or ()]
    places = (raw_folder, out_folder, names, workers, ray, tuple(against or ()), brought, sent)
    request = Request(load_recipe(recipe), recipe, *places)
    with Bars() as progress:
        outcome = run(request, progress)
    if as_json:
        _print_json(outcome.stages)
    else:
        summary.show_outcome(outcome, request)


@app.command(cls=_Command)
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Sources, as chimed sources lists them.")],
    raw: Annotated[Path, typer.Option(help="Folder that gets a folder of raw files for each source.")],
    as_json: Json = False,
) -> None:
    """Download raw files from where upstream publishes them; the same command goes on after a break."""
    from dataclasses import asdict

    from chimed import summary
    from chimed.bars import Bars
    from chimed.sources.fetch import check, named
    from chimed.sources.fetch import fetch as bring

    chosen = named(names)
    if not as_json:
        summary.show_licences(chosen)
    with Bars() as progress:
        found = [entry for source in chosen for entry in bring(source, raw, progress.step)]
    _print_json([asdict(entry) for entry in found]) if as_json else summary.show_fetched(found)
    check(found)


@app.command(cls=_Command)
def sources(
    raw: Annotated[Path | None, typer.Option(help="Folder with raw files: say which sources are there.")] = None,
    as_json: Json = False,
) -> None:
    """List the sources: shape, stages, licence, home page, and whether their files are there."""
    from chimed import summary

    listed = summary.sources(raw)
    _print_json(listed) if as_json else summary.show_sources(listed)


@app.command(cls=_Command)
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


@app.command(cls=_Command)
def why(
    name: Annotated[str, typer.Argument(metavar="ID", help="Id of a row: source/file#row.")],
    out: Out = Path("out"),
    as_json: Json = False,
) -> None:
    """Say what became of an input row, and why."""
    from chimed import summary

    found = summary.explain(out, name)
    _print_json(found) if as_json else summary.show_explained(found)


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a build, as chimed build --out wrote it.")]


@app.command(cls=_Command)
def report(folder: Folder, as_json: Json = False) -> None:
    """Write DIR/report.html: plots, duplicates, leakage and a searchable sample of rows, in one file."""
    from chimed.publish.report import report as write

    path = write(folder)
    _print_json({"path": str(path), "bytes": path.stat().st_size}) if as_json else typer.echo(str(path))


@app.command(cls=_Command)
def card(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a build or of one of its stages.")],
    as_json: Json = False,
) -> None:
    """Make the data cards of a build anew and draw their plots, for which matplotlib must be installed."""
    from chimed.publish.describe import refresh

    done = refresh(folder)
    if as_json:
        _print_json(done)
    else:
        typer.echo("\n".join(" ".join([own["card"], *own["plots"]]) for own in done))


@app.command(cls=_Command)
def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a build or of one of its stages.")],
    as_json: Json = False,
) -> None:
    """Say how many rows and characters a build has, how long they are, and what was repeated or leaked."""
    from chimed import summary
    from chimed.publish.statistics import statistics

    found = statistics(folder)
    _print_json(found) if as_json else summary.show_statistics(found)


@app.command(cls=_Command)
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Folder of a build.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Folder of the build to compare with it.")],
    as_json: Json = False,
) -> None:
    """Say what changed between two builds: counts, rows that came or went with examples, and the recipe."""
    from chimed import summary
    from chimed.publish.changes import changes

    found = changes(old, new)
    _print_json(found) if as_json else summary.show_changes(found)


@app.command(cls=_Command)
def dedup(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Parquet or JSON-lines files.")],
    out: Annotated[Path, typer.Option(help="New folder for the rows that stay and the list of those that do not.")],
    column: Annotated[str, typer.Option(help="Column with the texts.")] = "text",
    threshold: Annotated[
        float, typer.Option(min=0.1, max=1, help="Jaccard similarity of 5-grams from which two texts are one.")
    ] = 0.8,
    workers: Annotated[int, typer.Option(min=1, help="Threads; default: one a core.")] = os.cpu_count() or 1,
    as_json: Json = False,
) -> None:
    """Remove equal and near-equal texts from any files: the first one stays."""
    from dataclasses import asdict

    with _loading():
        from chimed.bars import Bars
        from chimed.repeats import dedup as run

    with Bars() as progress:
        found = run(files, out, column=column, threshold=threshold, workers=workers, step=progress.step)
    _print_json(asdict(found)) if as_json else typer.echo(str(found))


@app.command(cls=_Command)
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a build, as --out of chimed build.")],
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="Data set repository; made when it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone read it; default: private.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="File with the token; default: HF_TOKEN.")] = None,
    allow_licence: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Push sources with this licence too; may be repeated.")
    ] = None,
    any_licence: Annotated[bool, typer.Option("--any-licence", help="Push whatever the licences say.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Push a build to the Hugging Face Hub; what is there already is not sent again."""
    from dataclasses import asdict

    from chimed import summary
    from chimed.bars import Bars
    from chimed.publish.hub import Push
    from chimed.publish.hub import push as send

    allowed = None if any_licence else tuple(allow_licence or ())
    request = Push(folder, repo, token_file, public, allowed, dry_run)
    with Bars() as progress:
        done = send(request, progress)
    _print_json(asdict(done)) if as_json else summary.show_pushed(done)


@app.command(cls=_Command)
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a build, as --out of chimed build.")],
    to: Annotated[FormatName, typer.Option(help="Format to write.")],
    out: Annotated[Path, typer.Option(help="New folder, or that of an earlier export.")],
    as_json: Json = False,
) -> None:
    """Write a build's cpt, sft and dpo stages in the format of another tool."""
    from chimed import summary
    from chimed.publish.export import export as write

    done = write(folder, to.value, out)
    told = {"format": done.format, "folder": str(done.folder), "rows": done.rows, "left_out": done.left_out}
    _print_json(told) if as_json else summary.show_exported(done)


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
    atexit.register(gc.freeze)  # the last search for cycles, over all modules, takes longer than what it frees is worth
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
