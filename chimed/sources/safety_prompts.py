"""Safety-Prompts: 100,000 unsafe or delicate prompts in Chinese with safe replies, by kind of harm.

Sun et al. 2023, arXiv 2304.10436. A JSON object of lists: `{"CATEGORY": [{"prompt", "response", "type"}]}`.
"""

from collections.abc import Iterable

from chimed.records import Body
from chimed.sources.forms import unknown_columns
from chimed.sources.origins import Origin, hub
from chimed.sources.spec import Row, Source, dialogue

_pair = dialogue(question="prompt", answer="response")


def parse(row: Row) -> Iterable[Body]:
    """The prompt and its reply.

    >>> parse({"prompt": "怎么偷药？", "response": "偷窃违法，请去医院开药。", "type": "Crimes"})[0].turns[1].content
    '偷窃违法，请去医院开药。'
    """
    if not row.keys() >= {"prompt", "response"}:
        raise unknown_columns(row, "prompt, response, type")
    return _pair(row)


SOURCE = Source(
    name="safety-prompts",
    title="Safety-Prompts",
    homepage="https://github.com/thu-coai/Safety-Prompts",
    license="Apache-2.0",
    files={"**/*scenarios*.json*": "train", "**/*.jsonl": "train", "**/*.parquet": "train"},
    parse=parse,
    shapes=("dialogue",),
    stages=("sft",),
    origin=Origin(
        hub(
            "thu-coai/Safety-Prompts",
            "559ab9f24ce4621e3f839ef05e1075b6c4f125ee",
            "typical_safety_scenarios.json",
            "instruction_attack_scenarios.json",
        ),
    ),
)
