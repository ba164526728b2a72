"""What the cards say of each stage whatever its rows: columns, uses, limits. Text as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class What:
    """A stage in words. tasks: the Hub's task categories. columns: what each holds, in order."""

    purpose: str
    told: str
    tasks: tuple[str, ...]
    columns: dict[str, str]
    use: str


_ROW = {
    "id": "where the row comes from: `source/file#row`, or `source/graph#entity` for what was made from facts",
    "source": "name of the source, which decides the licence",
}
_TURNS = "a list of `{role, content}`"

WHAT: dict[str, What] = {
    "cpt": What(
        "continued pre-training",
        "Chinese medical documents: textbooks, guidelines, classics, knowledge graphs as prose, exams, consultations.",
        ("text-generation",),
        {**_ROW, "text": "one document"},
        "continued pre-training of Chinese language models on medical text, and research on it",
    ),
    "sft": What(
        "supervised fine-tuning",
        "Chinese conversations, most of them medical: consultations, exams with explanations, questions on graphs.",
        ("text-generation", "question-answering"),
        {**_ROW, "messages": f"the turns of a conversation, {_TURNS}"},
        "supervised fine-tuning of Chinese language models on medical questions, and research on it",
    ),
    "dpo": What(
        "preference optimisation",
        "Pairs of replies to Chinese questions, most of them medical, of which one is to be preferred.",
        ("text-generation",),
        {
            **_ROW,
            "prompt": f"the turns up to the reply, {_TURNS}",
            "chosen": "the reply to be preferred, in the same form",
            "rejected": "the other reply, in the same form",
            "kind": "how the pair was made: `given` by the source, from an `exam`, from a `fact`",
        },
        "preference optimisation (DPO and its relatives) and reward models for Chinese medical replies, and research",
    ),
    "eval": What(
        "evaluation",
        "Items of the test and validation splits that the sources publish: exams with a key, open questions with an "
        "answer.",
        ("question-answering", "multiple-choice"),
        {
            **_ROW,
            "kind": "`exam` or `open`",
            "question": "the question, without its options",
            "options": "the options in order, empty for an open question",
            "answer": "the letters of the right options, or a reference answer",
            "explanation": "why, where the source says it",
            "messages": f"the turns before an open question, {_TURNS}",
            **dict.fromkeys(("department", "discipline", "competency"), "where the source says it"),
            **dict.fromkeys(("disease_group", "difficulty"), "where the source says it"),
        },
        "scoring Chinese medical language models, with the other stages of the same build as training data",
    ),
    "rag": What(
        "retrieval",
        "Chinese medical passages to be retrieved and put before a question.",
        ("text-retrieval", "question-answering"),
        {
            **_ROW,
            "title": "what the passage is about",
            "text": "the passage, cut at the ends of sentences",
            "part": "its place in the document it was cut from",
        },
        "the index of retrieval-augmented generation, and research on retrieval in Chinese medical text",
    ),
}

LIMITS: dict[str, tuple[str, ...]] = {
    "cpt": (
        "Documents differ much in length and kind (see Size): without weights, long classics and textbooks prevail.",
        "The same knowledge may stand in several documents in other words; only near-equal texts count as repeats.",
    ),
    "sft": (
        "Replies of doctors on the web are short, often polite formulas, and were given without seeing the patient.",
        "Some sources were written by language models and hold their mistakes and manner; their home pages say so.",
    ),
    "dpo": (
        "Length says little about which reply is chosen (see the table of pairs); in given pairs, manner still does.",
        "Pairs made from exams and facts are right or wrong by a key and carry no reasoning; no clinician ranked them.",
    ),
    "eval": (
        "Keys and reference answers are those that upstream publishes, mistakes included; a reference answer is one of "
        "many good ones, so that overlap with it measures little.",
        "What a base model saw in its own pre-training is not known: these items are public.",
        "Exams change with the years, and so does what is right.",
    ),
    "rag": (
        "Passages were cut by length at the ends of sentences, so that one may lack what its neighbour says.",
        "Passages of classics describe historical practice, not treatment as it is known today.",
    ),
    "all": (
        "No clinician has reviewed the rows. Text from the web holds advertising, superstition and outdated advice.",
        "Repeats are found by shared characters, leaks by shared pieces of text: a paraphrase or a translation passes.",
        "Personal data is found by its form (numbers, addresses, accounts). Names of people, and circumstances that "
        "identify a person, are not masked.",
        "Most sources are of mainland China; drugs, units, law and practice elsewhere differ.",
    ),
}

_NEVER = (
    "diagnosis, treatment, triage or advice to patients, by the data or by a model trained on it, supervised or not",
    "finding out who a patient or a doctor in the text is",
    "any use that the licence of a source forbids: see Sources and licences",
)
FORBIDDEN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("cpt", "sft", "dpo", "rag"), _NEVER),
    "eval": (
        "training, in any stage: scores would mean nothing, here and in every later comparison",
        "a claim that a model is fit for medical work: exams measure what exams ask",
        *_NEVER,
    ),
}
