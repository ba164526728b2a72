"""The rejected rows of a build by source and reason, as the table in docs/sources.md.

chimed build --stage all --raw RAW --out OUT
python benchmarks/rejects.py OUT
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq


def main() -> None:
    ledger = pq.read_table(Path(sys.argv[1]) / "ledger.parquet", columns=["source", "verdict", "reason"])
    counts = ledger.group_by(["source", "verdict", "reason"], use_threads=False).aggregate([([], "count_all")])
    read: dict[str, int] = {}
    reasons: dict[str, list[tuple[int, str]]] = {}
    for row in counts.to_pylist():
        read[row["source"]] = read.get(row["source"], 0) + row["count_all"]
        if row["verdict"] == "rejected":
            reasons.setdefault(row["source"], []).append((row["count_all"], row["reason"]))
    print("| source | units read | rejected | reasons |\n|---|---:|---:|---|")
    for source, total in sorted(read.items()):
        own = sorted(reasons.get(source, []), reverse=True)
        share = sum(count for count, _ in own) / total
        print(f"| `{source}` | {total:,} | {share:.2%} | {', '.join(f'{name} {count:,}' for count, name in own)} |")


if __name__ == "__main__":
    main()
