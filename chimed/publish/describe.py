"""What stands beside the shards in a stage's folder: card, licences and plots; and what they tell, measured."""

import hashlib
import importlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chimed.engine import Engine
from chimed.errors import BuildError
from chimed.outcome import Progress
from chimed.publish import statistics
from chimed.publish.card import LICENCE, PLOTS, card, licence
from chimed.publish.finished import Finished
from chimed.publish.tokens import fetched, tokens
from chimed.recipe import Loaded
from chimed.stages import Measured

CARD = "README.md"
MEASURED = ("size", "languages", "from_facts", "reasons", "repeats", "equal", "leaks", "tokenizer")
_FOREIGN = 0.01  # share of rows without a Han character from which English is named as a language


def describe(
    found: Finished,
    measured: Sequence[tuple[str, Measured]],
    loaded: Loaded,
    tally: statistics.Tally,
    pool: Engine,
    progress: Progress,
) -> dict[str, Any]:
    """Write the card, and LICENSE.md where the Hub asks for it, into a stage's folder; what they tell, to be kept.

    found: the stage as far as it is, its manifest with the names of its shards. measured: its rows, each piece with
    its split. tally: of the ledger of its build. The result has the keys `MEASURED`, for the manifest, all of them
    about the sources of the stage alone.
    """
    told = {**figures(measured), **_ledger(found, tally), "tokenizer": {}}
    name = loaded.recipe.tokenizer
    if name:
        path = loaded.tokenizer or fetched(name)
        _add(told["size"], tokens(found, path, pool, progress))
        told["tokenizer"] = {"name": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    whole = Finished(found.stage, found.folder, {**found.manifest, **told})
    for file, text in _texts(whole).items():
        (found.folder / file).write_bytes(text)
    return told


def figures(measured: Sequence[tuple[str, Measured]]) -> dict[str, Any]:
    """What rows tell that were measured: size, languages, and how many were made from facts."""
    foreign, facts = (sum(getattr(own, name) for _, own in measured) for name in ("foreign", "facts"))
    size = statistics.size(statistics.gathered(measured))
    languages = ["zh", "en"] if foreign > _FOREIGN * size["rows"] else ["zh"]
    return {"size": size, "languages": languages, "from_facts": facts}


def _ledger(found: Finished, tally: statistics.Tally) -> dict[str, Any]:
    """What the ledger tells of the sources of a stage; of leaks, for the stage eval, those into its own sets."""
    names = found.manifest["sources"]
    rejects: dict[str, dict[str, int]] = {}
    for (source, verdict, reason), count in sorted(tally.verdicts.items()):
        if verdict == "rejected" and source in names:
            rejects.setdefault(source, {})[reason] = count
    repeats: dict[str, dict[str, int]] = {}
    for (source, by), count in sorted(tally.repeats.items()):
        if source in names:
            repeats.setdefault(source, {})[by] = count
    leaks: dict[str, dict[str, int]] = {}
    for (file, source), count in sorted(tally.leaks.items()):
        if (file.partition("/")[0] if found.stage == "eval" else source) in names:
            leaks.setdefault(file, {})[source] = count
    equal = {source: count for (source,), count in sorted(tally.equal.items()) if source in names}
    return {"reasons": rejects, "repeats": repeats, "equal": equal, "leaks": leaks}


def _add(size: dict[str, Any], counted: Counter[tuple[str, str]]) -> None:
    size["tokens"] = counted.total()
    for row in size["sources"]:
        row["tokens"] = counted[row["source"], row["split"]]


def _texts(found: Finished) -> dict[str, bytes]:
    told = {CARD: card(found), LICENCE: licence(found)}
    return {name: text.encode() for name, text in told.items() if text is not None}


def refresh(folder: Path) -> list[dict[str, Any]]:
    """Make the cards of a build, or of one stage by its folder, anew and draw their plots where matplotlib is.

    Gives for each stage its name, the path of its card and its plots. The shards stay as they are, and nothing is
    written where nothing differs. Raises BuildError when the folder holds no finished stage, or one without the figures
    of a card.
    """
    chosen = statistics.named(folder)
    for found in chosen:
        if lacking := [name for name in MEASURED if name not in found.manifest]:
            raise BuildError(
                f"{found.folder}: its manifest says nothing of {', '.join(lacking)}, since another version of chimed "
                "built it; build the stage anew"
            )
    try:
        return [_refresh(found) for found in chosen]
    except OSError as error:
        raise BuildError(
            f"{error.filename or folder}: {error.strerror or error}; make room or mend its rights, then run the same "
            "command again"
        ) from error


def _refresh(found: Finished) -> dict[str, Any]:
    plots = _plots(found)
    own = {CARD, LICENCE, *PLOTS}
    shards = {name: digest for name, digest in found.manifest["files"].items() if name not in own}
    named = {**found.manifest, "files": {**shards, **dict.fromkeys(plots, "")}}
    written = {**plots, **_texts(Finished(found.stage, found.folder, named))}
    files = {**shards, **{name: hashlib.sha256(data).hexdigest() for name, data in written.items()}}
    manifest = {**found.manifest, "files": dict(sorted(files.items()))}
    if manifest != found.manifest or any((found.folder / n).read_bytes() != data for n, data in written.items()):
        _replace(found, written, manifest)
    return {"stage": found.stage, "card": str(found.folder / CARD), "plots": sorted(plots)}


def _plots(found: Finished) -> Mapping[str, bytes]:
    """The plots by name, none without matplotlib: a card is whole without pictures."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return {}
    drawn: dict[str, bytes] = importlib.import_module("chimed.publish.plots").draw(found)
    return drawn


def _replace(found: Finished, written: Mapping[str, bytes], manifest: dict[str, Any]) -> None:
    """Put another folder with the same shards in the place of a finished one, complete as it was.

    The new one is made whole first. Who stops this between the two renames leaves no folder, as one that was never
    built, and never one that is half old and half new.
    """
    work = found.folder.parent / ".work" / "cards" / found.stage
    shutil.rmtree(work, ignore_errors=True)
    whole = work / "folder"
    whole.mkdir(parents=True)
    for name in manifest["files"].keys() - written.keys():
        try:
            (whole / name).hardlink_to(found.folder / name)
        except OSError:  # not every file system has links
            shutil.copyfile(found.folder / name, whole / name)
    for name, data in written.items():
        (whole / name).write_bytes(data)
    (whole / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    found.folder.rename(work / "before")
    whole.rename(found.folder)
    shutil.rmtree(work)
