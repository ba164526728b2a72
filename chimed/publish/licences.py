"""Which licences let a build's rows be passed on, and what they ask of whoever does."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from chimed.errors import BuildError
from chimed.publish.finished import Finished

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
    "CC-BY-3.0": (_CREDIT,),
    "CC-BY-SA-3.0": (_CREDIT, _SHARE_ALIKE),
    "CC-BY-NC-3.0": (_CREDIT, _NON_COMMERCIAL),
    "CC-BY-NC-SA-3.0": (_CREDIT, _NON_COMMERCIAL, _SHARE_ALIKE),
    "BSD-2-Clause": ("keep the licence and its notices",),
    "BSD-3-Clause": ("keep the licence and its notices",),
    "GPL-3.0": ("keep the licence and its notices", _SHARE_ALIKE),
}
_BY_LETTERS = {name.lower(): name for name in REDISTRIBUTABLE}
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


def canonical(licence: str) -> str:
    """A licence's name as `REDISTRIBUTABLE` has it, whatever its case and blanks; any other as it is.

    >>> canonical("cc by-nc 4.0"), canonical(" mit"), canonical("学术用途")
    ('CC-BY-NC-4.0', 'MIT', '学术用途')
    """
    plain = " ".join(licence.split())
    return _BY_LETTERS.get(plain.lower().replace(" ", "-"), plain)


def licensed(stages: Sequence[Finished]) -> list[Licensed]:
    """The sources of a build by name, as its manifests tell of them; what they do not tell is "unknown"."""
    rows: dict[str, int] = {}
    told: dict[str, dict[str, str]] = {}
    for stage in stages:
        told |= stage.manifest.get("licences", {})
        for name, splits in stage.manifest["sources"].items():
            rows[name] = rows.get(name, 0) + sum(splits.values())
    found = []
    for name, count in sorted(rows.items()):
        own = told.get(name, {})
        licence = canonical(own.get("license", UNKNOWN))
        asks = REDISTRIBUTABLE.get(licence)
        found.append(Licensed(name, own.get("title", name), own.get("homepage", ""), licence, count, asks))
    return found


def check(sources: Sequence[Licensed], allowed: Collection[str] | None) -> None:
    """Raises BuildError, with the sources by licence, unless each may be passed on or has an allowed licence.

    `allowed` holds names of licences; None allows any.
    """
    if allowed is None:
        return
    mine = {canonical(name).lower() for name in allowed}
    refused: dict[str, list[str]] = {}
    for source in sources:
        if source.asks is None and source.license.lower() not in mine:
            refused.setdefault(source.license, []).append(source.name)
    if refused:
        listed = "; ".join(f"{licence} ({', '.join(names)})" for licence, names in sorted(refused.items()))
        flags = " ".join(f"--allow-licence {shlex.quote(licence)}" for licence in sorted(refused))
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
