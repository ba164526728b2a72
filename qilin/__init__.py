"""Qilin-Med: trains and scores Chinese medical language models on the data sets that chimed builds."""

from qilin.errors import QilinError, RecipeError

__all__ = ["QilinError", "RecipeError"]
