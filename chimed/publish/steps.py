"""How a stage was made, as sections of its card: each step with its parameters and what it counted."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from chimed.dedup.minhash import BANDS, ROWS
from chimed.leakage import GRAM, MIN_GRAMS, RUN, RUN_PART, SHARE
from chimed.publish.licences import Licensed
from chimed.publish.markdown import code, table, words
from chimed.reasons import meaning

MOST = 25  # lines of a table
_VERDICTS = ("read", "rejected", "leaked", "repeated", "kept")
_KINDS = {
    "mobile": "mobile numbers",
    "landline": "telephone numbers",
    "id": "identity card numbers",
    "email": "e-mail addresses",
    "qq": "QQ numbers",
    "wechat": "WeChat names",
    "url": "web addresses",
}


def steps(manifest: dict[str, Any], sources: list[Licensed], plot: list[str]) -> list[str]:
    """The sections on how a stage was made. `plot` stands above the table of its sources."""
    names = [source.name for source in sources]
    counts = {name: _sum(manifest["counts"][name]) for name in names}
    return [
        "## How it was made",
        "",
        "A unit is a record of a raw file, or a raw row that gave none. Each is kept, or rejected for a reason, or",
        "leaked into an evaluation item, or repeats another: nothing vanishes, and `ledger.parquet` of the build has",
        "the verdict on every unit.",
        "",
        *plot,
        *_funnel(manifest, names, counts),
        *_text(manifest),
        *_rejected(manifest),
        *_leaked(manifest),
        *_repeated(manifest, counts),
        *_chosen(manifest, names),
    ]


def _sum(files: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    return Counter({name: sum(counts[name] for counts in files.values()) for name in _VERDICTS})


def _funnel(manifest: dict[str, Any], names: list[str], counts: Mapping[str, Counter[str]]) -> list[str]:
    rows = {name: sum(own.values()) for name, own in manifest["sources"].items()}
    lines: list[list[object]] = [
        [code(name), *(counts[name][verdict] for verdict in _VERDICTS), rows[name]]
        for name in sorted(names, key=lambda name: -counts[name]["read"])
    ]
    total = sum(counts.values(), Counter())
    lines.append(["all", *(total[verdict] for verdict in _VERDICTS), sum(rows.values())])
    others = [name for name in manifest["counts"] if name not in rows]
    told = f" No row here comes from the other sources of the build ({', '.join(map(code, others))})." if others else ""
    return [
        "The sources of this stage, in units of the whole corpus; the last column counts the rows of this data set: "
        f"facts are joined into documents and questions, long texts are cut, shares and caps leave rows out.{told}",
        *table(["source", *_VERDICTS, "rows here"], lines),
    ]


def _text(manifest: dict[str, Any]) -> list[str]:
    simplified = manifest["recipe"]["script"] == "simplified"
    script = "traditional characters became simplified ones (OpenCC)" if simplified else "the script stayed as it was"
    masked = {kind: count for kind, count in manifest["masked"].items() if count}
    found = ", ".join(f"{_KINDS.get(kind, words(kind))} {count:,}" for kind, count in masked.items())
    return [
        f"**Cleaning.** {manifest['raw_mb']:,.1f} MB of raw files were read. Markup, entities, invisible and broken "
        "characters and what web pages leave behind were removed; wide letters and digits became plain ones (NFKC), "
        f"Chinese punctuation stayed; {script}.",
        "",
        "**Personal data** was replaced by placeholders such as `[手机号]`, in the whole corpus: "
        f"{found or 'none was found'}.",
        "",
    ]


def _rejected(manifest: dict[str, Any]) -> list[str]:
    reasons: Counter[str] = Counter()
    for own in manifest["reasons"].values():
        reasons.update(own)
    if not reasons:
        return ["**Rejected:** no unit of these sources.", ""]
    rows = [[code(reason), words(meaning(reason)), count] for reason, count in _ordered(reasons)]
    return ["**Rejected** units of these sources, by reason:", *_most(["reason", "meaning", "units"], rows, 2)]


def _leaked(manifest: dict[str, Any]) -> list[str]:
    rule = (
        "**Leakage.** A row is taken out if one of its texts equals an evaluation text, or holds "
        f"{SHARE:.0%} of its distinct grams of {GRAM} characters (where it has {MIN_GRAMS} or more), or {RUN} "
        f"characters of it in one piece that are {RUN_PART:.0%} of it or more. An exam stem that names no subject "
        "counts only with one of its options. Upstream test and validation splits never train."
    )
    leaks: Counter[tuple[str, str]] = Counter()
    for file, own in manifest["leaks"].items():
        for source, count in own.items():
            leaks[file.partition("/")[0], source] += count
    whose = "for these evaluation sets" if manifest["stage"] == "eval" else "of these sources"
    if not leaks:
        return [f"{rule} No row was taken out {whose}.", ""]
    rows = [[code(held), code(source), count] for (held, source), count in _ordered(leaks)]
    return [
        f"{rule} Taken out {whose}: {leaks.total():,} rows.",
        *_most(["evaluation set", "rows of", "taken out"], rows, 2),
    ]


def _repeated(manifest: dict[str, Any], counts: Mapping[str, Counter[str]]) -> list[str]:
    if manifest["recipe"].get("repeats") == "keep":
        return ["**Duplicates** were not looked for: the recipe keeps every row, equal ones too.", ""]
    near, equal = manifest["recipe"]["near"], sum(manifest["equal"].values())
    total = sum(own["repeated"] for own in counts.values())
    again = sum(manifest.get("again", {}).values())
    before = f" {again:,} rows of the corpus repeat one of an earlier build and were left out too." if again else ""
    rule = (
        "**Duplicates** are looked for across all sources at once. Two rows are one if they are equal but for case, "
        "width, script and punctuation, or if the Jaccard similarity of their distinct character 5-grams is "
        f"{near} or more: candidates by MinHash ({BANDS} bands of {ROWS}), each verified. The copy of the source that "
        "stands first in the recipe stays."
    )
    if not total:
        return [f"{rule}{before} No row of these sources repeats another.", ""]
    repeats = Counter({(name, by): n for name, own in manifest["repeats"].items() for by, n in own.items()})
    rows = [[code(name), code(by), count] for (name, by), count in _ordered(repeats)]
    return [
        f"{rule}{before} Of these sources {total:,} rows repeat another, {equal:,} of them at similarity 1.",
        *_most(["rows of", "repeat rows of", "left out"], rows, 2),
    ]


def _chosen(manifest: dict[str, Any], names: list[str]) -> list[str]:
    recipe, stage = manifest["recipe"], manifest["stage"]
    rows = [
        [code(entry["name"] or entry["file"]), f"{entry['share']:.0%}", entry["cap"] or ""]
        for entry in recipe["sources"]
        if (entry["name"] in names or entry["file"]) and (entry["share"] < 1 or entry["cap"])
    ]
    lines: list[str] = []
    if rows and stage != "eval":
        lines += [
            "**Balance.** Of these sources a part is taken, chosen by a hash of the row's id:",
            *table(["source", "share", "at most rows"], rows),
        ]
    if manifest["pairs"]:
        lines += ["**Pairs** by how they were made. " + _BALANCE[recipe["length_balance"]], *_pairs(manifest["pairs"])]
    if stage == "rag":
        lines += [f"**Passages** have at most {recipe['rag_length']} characters, cut at the ends of sentences.", ""]
    if stage not in ("eval", "rag"):
        lines += [
            f"**Split.** {recipe['validation']:.1%} of the rows were held out for validation, by a hash, all "
            "near-copies and all questions on one entity on the same side. The rows are shuffled by the seed "
            f"{recipe['seed']}.",
            "",
        ]
    return lines


_BALANCE = {
    True: "Pairs were left out until the median length of chosen to rejected replies was within a tenth of 1, as far "
    "as the pairs at hand allow.",
    False: "No pair was left out for its length.",
}


def _pairs(pairs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [words(kind), own["made"], own["kept"]]
        + ["" if ratio is None else f"{ratio:.2f}" for ratio in (own["ratio"], own["ratio_kept"])]
        for kind, own in pairs.items()
    ]
    return table(["kind", "made", "kept", "median length, chosen to rejected", "of those kept"], rows)


def _ordered(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _most(head: list[str], rows: Iterable[list[Any]], left: int) -> list[str]:
    """A table of the first rows, and a last one with the sum of all others."""
    every = list(rows)
    if len(every) > MOST:
        rest = every[MOST:]
        every = [*every[:MOST], [f"{len(rest)} others", *[""] * (left - 1), sum(row[-1] for row in rest)]]
    return table(head, every, left)
