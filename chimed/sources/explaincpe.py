"""ExplainCPE: about 7,000 items of the Chinese pharmacist examination, each with an explanation.

Li et al. 2023, "ExplainCPE: A Free-text Explanation Benchmark of Chinese Pharmacist Examination" (Findings of EMNLP).
"""

from chimed.sources.spec import Source, exam

SOURCE = Source(
    name="explaincpe",
    title="ExplainCPE",
    homepage="https://github.com/HITsz-TMG/ExplainCPE",
    license="unknown",
    files={"**/train.json": "train", "**/dev.json": "validation", "**/test.json": "test"},
    parse=exam(question="question", options="options", answer="answer", explanation="explanation"),
    shapes=("exam",),
    stages=("cpt", "sft", "dpo"),
)
