"""CMD: 882,000 questions of patients and answers of doctors, as the paper of ChiMed lists them.

The paper counts it beside Chinese-medical-dialogue-data (`chimed.sources.toyhom`) and says no more of where it comes
from: not the same rows, for they are a third as long, but rows of one kind in one set of forms, so one parser reads
both. What the two share is removed as repeated when the corpus is built.
"""

from chimed.sources.origins import Origin
from chimed.sources.spec import Source
from chimed.sources.toyhom import parse

SOURCE = Source(
    name="cmd",
    title="CMD",
    homepage="",
    license="unknown",
    files={
        "**/*test*": "test",
        "**/*valid*": "validation",
        "**/*dev*": "validation",
        "**/*.json*": "train",
        "**/*.csv": "train",
        "**/*.txt": "train",
    },
    parse=parse,
    shapes=("dialogue",),
    stages=("cpt", "sft"),
    text="paragraphs",
    origin=Origin(
        where="The paper names no address; ask the authors of Qilin-Med (https://github.com/williamliujl/Qilin-Med), "
        "or build without it: `chimed fetch toyhom` gets rows of the same kind",
    ),
)
