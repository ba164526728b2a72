"""The error tree of qilin.

    QilinError                  what a user can mend: the command line prints one sentence and exits with 2
    └── RecipeError             the recipe is wrong: every fault at once        (also a ValueError)

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
