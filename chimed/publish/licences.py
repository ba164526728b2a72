"""Which licences let a build's rows be passed on, and what they ask of whoever does."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chimed.errors import BuildError
from chimed.publish.finished import Finished
from chimed.sources import discover

_CREDIT = "name the source and its licence"
_NON_COMMERCIAL = "no commercial use"
_SHARE_ALIKE = "pass on under the same licence"
# A build cuts, cleans and re-orders, so that a licence which allows no derivatives does not allow it to be passed on.
# What is not in this table forbids it, or does not say.
REDISTRIBUTABLE: dict[str, tuple[str, ...]] = {
    "Apache-2.0": ("keep the licence and its notices",),
    "MIT": ("keep the licence and its notices",),
    "CC0-1.0": (),
    "CC-BY-4.0": (_CREDIT,),
    "CC-BY-SA-4.0": (_CREDIT, _SHARE_ALIKE),
    "CC-BY-NC-4.0": (_CREDIT, _NON_COMMERCIAL),
    "CC-BY-NC-SA-4.0": (_CREDIT, _NON_COMMERCIAL, _SHARE_ALIKE),
    "GPL-3.0": ("keep the licence and its notices", _SHARE_ALIKE),
}
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Licensed:
    """A source whose rows stand in a build. `rows` is over all stages; `asks` is None where no right was found."""

    name: str
    title: str
    homepage: str
    license: str
    rows: int
    asks: tuple[str, ...] | None


def licensed(stages: Sequence[Finished]) -> list[Licensed]:
    """The sources of a build by name. A source that does not come with chimed has the licence "unknown"."""
    rows: dict[str, int] = {}
    for stage in stages:
        for name, splits in stage.manifest["sources"].items():
            rows[name] = rows.get(name, 0) + sum(splits.values())
    known = discover()
    found = []
    for name, count in sorted(rows.items()):
        source = known.get(name)
        title, homepage, licence = (source.title, source.homepage, source.license) if source else (name, "", UNKNOWN)
        found.append(Licensed(name, title, homepage, licence, count, REDISTRIBUTABLE.get(licence)))
    return found


def check(sources: Sequence[Licensed], allowed: Collection[str] | None) -> None:
    """Raises BuildError, with the sources by licence, unless each may be passed on or has an allowed licence.

    `allowed` holds names of licences; None allows any.
    """
    if allowed is None:
        return
    refused: dict[str, list[str]] = {}
    for source in sources:
        if source.asks is None and source.license not in allowed:
            refused.setdefault(source.license, []).append(source.name)
    if refused:
        listed = "; ".join(f"{licence} ({', '.join(names)})" for licence, names in sorted(refused.items()))
        flags = " ".join(f"--allow-licence '{licence}'" for licence in sorted(refused))
        raise BuildError(
            f"these licences forbid passing the rows on, or do not allow it: {listed}; leave the sources out of the "
            f"recipe, or, where you have the right, add {flags}"
        )


def terms(sources: Sequence[Licensed]) -> list[str]:
    """What holds for the build as a whole, strictest first: one sentence a condition, with the sources that set it."""
    told = []
    bare = [source.name for source in sources if source.asks is None]
    if bare:
        told.append(
            f"**No right to pass these rows on was found** ({', '.join(bare)}): whoever published this repository "
            "answers for it; do not copy them further."
        )
    for ask in (_NON_COMMERCIAL, _SHARE_ALIKE, _CREDIT, "keep the licence and its notices"):
        names = [source.name for source in sources if ask in (source.asks or ())]
        if names:
            told.append(f"{ask[0].upper()}{ask[1:]} ({', '.join(names)}).")
    return told
