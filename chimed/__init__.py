"""Rebuilds ChiMed, the Chinese medical training corpus, from its raw public sources. Knows no torch."""

from chimed.errors import BuildError, ChimedError, RecipeError, RowError, SourceError

__all__ = ["BuildError", "ChimedError", "RecipeError", "RowError", "SourceError"]
