"""The command line of qilin."""

from importlib.metadata import version as installed
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qilin {installed('chimed')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def qilin(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Train and score Qilin-Med on the data sets that `chimed` builds.

    Training and evaluation arrive with the next releases.
    """
    typer.echo(context.get_help())


def main() -> None:
    """The console script."""
    app()
