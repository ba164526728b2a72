"""zhongjing_rlhf: replies of a medical model ranked by doctors and students of medicine, 2,000 of 20,000 published.

Yang et al. 2023, arXiv 2308.03549. Three forms: `question, response_chosen, response_rejected`; `instruction, input,
output` with the replies from best to worst; and the table of its labelling tool, `query, history, rank1 … rankN`.
"""

import json
import re
from collections.abc import Iterable

from chimed.errors import RowError
from chimed.records import Body
from chimed.sources.forms import reward
from chimed.sources.origins import Origin, github
from chimed.sources.spec import Row, Source, need

_RANK = re.compile(r"rank(\d+)")


def parse(row: Row) -> Iterable[Body]:
    """The pairs of a row: of a ranking, one for each two neighbours.

    >>> row = {"query": "头晕？", "history": "[]", "rank1": "先量血压。", "rank2": "多休息。", "rank3": "不知道。"}
    >>> [(pair.chosen, pair.rejected) for pair in parse(row)]
    [('先量血压。', '多休息。'), ('多休息。', '不知道。')]
    """
    ranks = sorted((int(found[1]), name) for name in row if (found := _RANK.fullmatch(str(name))))
    if "query" in row and ranks:
        replies = [row[name] for _, name in ranks if row[name]]
        return reward({"instruction": need(row, "query"), "output": replies, "history": _history(row)})
    return reward(row)


def _history(row: Row) -> object:
    """The pairs under `history`, which a table holds as text."""
    value = row.get("history") or []
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise RowError("history-not-pairs", f"found {value[:60]!r}") from None


SOURCE = Source(
    name="zhongjing-rlhf",
    title="zhongjing_rlhf",
    homepage="https://github.com/SupritYoung/Zhongjing",
    license="unknown",
    files={"**/*.json*": "train", "**/*.tsv": "train"},
    parse=parse,
    shapes=("preference",),
    stages=("dpo",),
    origin=Origin(
        github("SupritYoung/Zhongjing", "fc0baf873f0e96f776d576698b47abb7e0bd589f", "src/rlhf_label/total_dataset.tsv"),
        where="The ranked replies themselves are published, if anywhere, from https://github.com/SupritYoung/Zhongjing",
    ),
)
