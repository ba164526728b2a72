"""Rebuilds ChiMed, the Chinese medical training corpus, from its raw public sources. Knows no torch."""

from contextlib import suppress
from pathlib import Path

from chimed.errors import BuildError, ChimedError, RecipeError, RowError, SourceError
from chimed.kernels import refresh

__all__ = ["BuildError", "ChimedError", "RecipeError", "RowError", "SourceError"]

if (Path(__file__).parents[1] / "pyproject.toml").is_file():  # a checkout: an installed package does not change
    with suppress(OSError):
        refresh(Path(__file__).parent)
