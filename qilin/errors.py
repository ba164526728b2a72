"""The error tree of qilin.

    QilinError                  what a user can mend: the command line prints `qilin: <message>` and exits with 2
    ├── RecipeError             the recipe is wrong: every fault at once                      (also a ValueError)
    ├── DataError               a data folder without manifest, of another stage, or empty    (also a ValueError)
    ├── ModelError              a model, tokenizer or chat template that cannot be used       (also a ValueError)
    └── RunError                a run that cannot start or go on                              (also a RuntimeError)

Anything else that reaches the command line is a bug: a traceback and exit code 1.
"""

from collections.abc import Sequence


class QilinError(Exception):
    """What a user can mend. The message says where, what was found, what is allowed and what to do."""


class RecipeError(QilinError, ValueError):
    """A recipe that cannot be run; `faults` holds every fault, one sentence each."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{where}: {fault}" for fault in self.faults))


class DataError(QilinError, ValueError):
    """Data that cannot be used: a folder without a manifest, of another stage, changed, or with an empty split."""


class ModelError(QilinError, ValueError):
    """A model folder, tokenizer or chat template that cannot be used, or that does not fit the stage before."""


class RunError(QilinError, RuntimeError):
    """A run that cannot start or go on: its folder is in use, the loss exploded, the disk is full."""
