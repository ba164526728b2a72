"""What a build did, and how it tells how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chimed.ledger import Counts
from chimed.sources.readers import Unread


class Progress(Protocol):
    """Told how far a step is."""

    def step(self, name: str, total: int) -> Callable[[int], None]:
        """Begin a step of this many units; call the result with each advance."""
        ...


@dataclass(slots=True)
class Outcome:
    """What a build did, for the manifest and the summary.

    stages: manifest of each stage. empty: stages that no row goes into. missing: sources of the recipe without a file.
    unread, looked_up: files that give no rows, by source: left alone, or joined with the rows of other files.
    again: rows by shape that repeat one of an earlier build, where the build was compared with any.
    seconds: CPU-seconds a step, summed over workers, of the steps before the stages. bytes: of raw files, unpacked.
    """

    counts: Counts = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unread: dict[str, list[Unread]] = field(default_factory=dict)
    looked_up: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0
    bytes: int = 0
