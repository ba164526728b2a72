"""What the knowledge graphs give: entities, documents, questions, corrupted facts, their variety, and the speed.

    python benchmarks/graph.py RAW [SOURCE ...]

reads the knowledge graphs below RAW (all that are there, or those named), reports on each and on all merged, and
checks every corrupted fact against the facts with plain Python sets, which know nothing of how it was made.
"""

import argparse
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from chimed import graph, phrases
from chimed.errors import RowError
from chimed.graph import corrupt
from chimed.quality import verdicts
from chimed.records import Record, map_texts, to_table
from chimed.sources import discover
from chimed.sources.readers import find, rows, slices
from chimed.sources.spec import Source
from chimed.text import clean


def records(source: Source, raw: Path) -> Iterator[Record]:
    """The records of the facts that a source gives."""
    for file in find(source, raw)[0]:
        for part in slices(source, file):
            for number, row in rows(source, part):
                try:
                    bodies = () if isinstance(row, RowError) else tuple(source.parse(row))
                except RowError:
                    continue
                for place, body in enumerate(bodies, 1):
                    yield Record(source.name, f"{file.name}#{number}/{place}", "train", body)


def facts_of(source: Source, raw: Path) -> tuple[pa.Table, Counter[str]]:
    """The kept facts of a source with the column `source`, and why the others are rejected."""
    table = map_texts("fact", to_table("fact", list(records(source, raw))), clean)
    reasons = verdicts("fact", table)
    table = table.filter(pc.is_null(reasons))
    rejected = Counter({row["values"]: row["counts"] for row in reasons.drop_null().value_counts().to_pylist()})
    return table.append_column("source", pa.repeat(source.name, len(table))), rejected


def opening(row: dict[str, str]) -> str:
    """The first five characters of a text, its title standing for one."""
    return row["text"].replace(row["title"], "@")[:5]


def named(reply: str, head: str, relation: str) -> list[str]:
    """The tails that a reply names."""
    for _, sentences in phrases.WORDINGS[relation].told:
        for sentence in sentences:
            pattern = re.escape(sentence).replace(r"\{head\}", re.escape(head)).replace(r"\{tails\}", "(.+)")
            if found := re.fullmatch(pattern, reply):
                return found[1].split("、")
    raise ValueError(f"no sentence for {relation} gives {reply!r}")


def false_pairs(pairs: pa.Table, facts: pa.Table) -> list[dict[str, str]]:
    """Pairs whose chosen reply names what is not in the facts, or whose rejected one names what is."""
    known: dict[tuple[str, str], set[str]] = defaultdict(set)
    alias: dict[str, set[str]] = defaultdict(set)
    heads = set(facts["head"].to_pylist())
    for head, relation, tail in zip(*(facts[name].to_pylist() for name in ("head", "relation", "tail")), strict=True):
        known[head, relation] |= {tail.strip("。；;，,、 "), *tail.split("、")}
        if relation == "别名":
            alias[head].add(tail)
            alias[tail].add(head)
    wrong = []
    for row in pairs.to_pylist():
        head, relation = row["title"], row["relation"]
        also = corrupt.OPPOSED[relation][1].also if relation in corrupt.OPPOSED else corrupt.WRONG[relation].also
        names = {head, *(alias[head] & heads)}
        if relation == "别名":
            known[head, relation] |= alias[head]
        true = set().union(*(known[name, relation] for name in names))
        near = set().union(*(known[name, other] for name in names for other in also))
        chosen, rejected = (named(row[reply], head, relation) for reply in ("chosen", "rejected"))
        if set(chosen) - true or set(rejected) & (true | near) or len(chosen) == 0:
            wrong.append(row)
    return wrong


def timed(make: Callable[[pa.Table], Iterator[pa.Table]], facts: pa.Table) -> tuple[pa.Table, float]:
    """What is made of the facts, and how many facts a second it took, compiled code warm."""
    for few in make(graph.canonical(facts.slice(0, 1000))):
        del few
    start = time.perf_counter()
    made = pa.concat_tables(make(graph.canonical(facts)))
    return made, len(facts) / (time.perf_counter() - start)


def balance(pairs: pa.Table) -> float:
    """The share of named tails that would have to be exchanged for each to be as often false as true."""
    count: Counter[tuple[str, str]] = Counter()
    total = 0
    for row in pairs.to_pylist():
        kind = "food" if row["relation"] in corrupt.OPPOSED else row["relation"]
        for reply, sign in (("chosen", 1), ("rejected", -1)):
            tails = named(row[reply], row["title"], row["relation"])
            total += len(tails)
            for tail in tails:
                count[kind, tail] += sign
    return sum(map(abs, count.values())) / max(total, 1)


def told(pairs: pa.Table) -> float:
    """The share of pairs in which the true reply alone shares two neighbouring characters with the head."""
    telling = 0
    for row in pairs.to_pylist():
        head = row["title"]
        words = {head[place : place + 2] for place in range(len(head) - 1)}
        shares = [
            any(word in tail for tail in named(row[reply], head, row["relation"]) for word in words)
            for reply in ("chosen", "rejected")
        ]
        telling += shares[0] and not shares[1]
    return telling / max(len(pairs), 1)


def report(name: str, facts: pa.Table) -> None:
    """Print what a graph gives."""
    entities = set(facts["head"].to_pylist()) | set(
        facts.filter(pc.not_equal(facts["tail_type"], "text"))["tail"].to_pylist()
    )
    print(f"\n{name}: {len(facts):,} facts, {len(entities):,} entities, "
          f"{pc.count_distinct(facts['relation']).as_py()} relations")  # fmt: skip
    documents, speed = timed(graph.documents, facts)
    (first, often), *_ = Counter(map(opening, documents.to_pylist())).most_common(1)
    print(f"  documents  {len(documents):>9,}  {speed:>9,.0f} facts/s  opening {first!r} {often / len(documents):.1%}")
    questions, speed = timed(graph.questions, facts)
    forms = ", ".join(f"{form} {count:,}" for form, count in Counter(questions["form"].to_pylist()).items())
    print(f"  questions  {len(questions):>9,}  {speed:>9,.0f} facts/s  {forms}")
    pairs, speed = timed(graph.corrupted, facts)
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(pairs["relation"].to_pylist()).most_common())
    print(f"  corrupted  {len(pairs):>9,}  {speed:>9,.0f} facts/s  {kinds}")
    if len(pairs):
        wrong = false_pairs(pairs, facts)
        lengths = [pc.sum(pc.utf8_length(pairs[reply])).as_py() for reply in ("rejected", "chosen")]
        print(
            f"  checked    {len(pairs):>9,}  {len(wrong)} not as they should be; rejected / chosen length "
            f"{lengths[0] / lengths[1]:.3f}; out of balance {balance(pairs):.1%}; told from the head {told(pairs):.1%}"
        )
        for row in wrong[:3]:
            print(f"    {row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("sources", nargs="*")
    args = parser.parse_args()
    known = {name: source for name, source in discover().items() if "fact" in source.shapes}
    tables = []
    for name in args.sources or known:
        if (args.raw / name).exists():
            facts, rejected = facts_of(known[name], args.raw)
            tables.append(facts)
            report(name, facts)
            print(f"  rejected   {rejected.total():>9,}  {dict(rejected)}")
    if len(tables) > 1:
        report("all", pa.concat_tables(tables).combine_chunks())


if __name__ == "__main__":
    main()
