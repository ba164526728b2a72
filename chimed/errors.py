"""The error tree of chimed.

    ChimedError                 what a user can mend: the command line prints one sentence and exits with 2
    ├── RecipeError             the recipe is wrong: every fault at once        (also a ValueError)
    ├── SourceError             a raw file is missing, changed or unreadable    (also a ValueError)
    ├── RowError                one row is unusable: a reason slug, counted     (also a ValueError)
    └── BuildError              the build cannot go on or must not              (also a RuntimeError)

Anything else that reaches the command line is a bug: a traceback and exit code 1.
"""

from collections.abc import Sequence


class ChimedError(Exception):
    """What a user can mend. The message says where, what was found, what is allowed and what to do."""


class RecipeError(ChimedError, ValueError):
    """A recipe that cannot be built; `faults` holds every fault, one sentence each."""

    def __init__(self, where: str, faults: Sequence[str]) -> None:
        self.where, self.faults = where, tuple(faults)
        super().__init__("\n".join(f"{where}: {fault}" for fault in self.faults))

    def __reduce__(self) -> tuple[type["RecipeError"], tuple[str, tuple[str, ...]]]:
        return type(self), (self.where, self.faults)  # so that it survives the way back from a worker process


class SourceError(ChimedError, ValueError):
    """A raw file that is missing, changed while it was read, or cannot be opened at all."""


class RowError(ChimedError, ValueError):
    """One row that gives no record. `reason` is a slug such as `no-answer`; it becomes a line of the ledger.

    held: the question of an evaluation item that cannot be scored, for want of a key, but must not train either.
    options: of that item, if it has any.
    """

    def __init__(self, reason: str, detail: str = "", held: str = "", options: Sequence[str] = ()) -> None:
        self.reason, self.detail, self.held, self.options = reason, detail, held, tuple(options)
        super().__init__(f"{reason}: {detail}" if detail else reason)

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str, str, tuple[str, ...]]]:
        return type(self), (self.reason, self.detail, self.held, self.options)


class BuildError(ChimedError, RuntimeError):
    """A build that cannot go on (disk full, foreign output folder) or must not (too many rejects, empty stage)."""
