"""One question: passages are retrieved, a model replies from them, and what it cites is checked against them."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from qilin.errors import DataError, RunError
from qilin.evaluate import prompt
from qilin.evaluate.exam import Item
from qilin.evaluate.model import Answerer, Ask
from qilin.evaluate.prompt import Passage
from qilin.evaluate.questions import DEPTH, new
from qilin.rag.citations import citations, mentions
from qilin.rag.retrieve import Hit, Mode, Retriever
from qilin.rag.tokens import missing

NOTE = (
    "Not for clinical use: a language model wrote this reply, no clinician has checked it, and it can be wrong even "
    "where it cites. 仅供研究，不得用于诊断和治疗。"
)
BUDGET = 400  # characters a passage may take on average: the 1,200 of three that evaluations default to
MAX_NEW_TOKENS = 512
# What moves a terminal's cursor, changes its colours or turns the direction of writing.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage as the model saw it, … where it was cut. number: how it is cited. cited: whether the reply does."""

    number: int
    id: str
    source: str
    title: str
    text: str
    cited: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a reply. numbers: the passages that it cites. unknown: those that it cites and that nobody showed."""

    text: str
    numbers: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """A question with its reply.

    parts: the reply, cut where it cites. passages: what was shown, best first. cited: ids in the order of their first
    citation. unknown: numbers in the reply that name no passage. unfinished: whether it had no room to come to its end.
    """

    question: str
    mode: Mode
    reply: str
    parts: tuple[Part, ...]
    passages: tuple[Shown, ...]
    cited: tuple[str, ...]
    unknown: tuple[int, ...]
    unfinished: bool = False
    note: str = NOTE


@dataclass(frozen=True)
class Asker:
    """A model and an index, opened for questions. name: of the model, for those who ask."""

    name: str
    answerer: Answerer
    retriever: Retriever
    mode: Mode
    k: int

    def ask(self, question: str) -> Answered:
        """The reply to a question, in the frame of the evaluation: greedy, so the same question gets the same reply.

        Raises DataError for a question that is empty or no text, RunError for one that does not fit the model.
        """
        question = question.strip()
        if not question or re.search("[\ud800-\udfff]", question):
            raise DataError("the question is empty or no text: ask in words")
        [found] = self.retriever.search([question], DEPTH * self.k, self.mode)
        hits = new(found, self.k)
        passages = prompt.passages([(hit.id, hit.title, hit.text) for hit in hits], BUDGET * self.k)
        item = Item("ask/1", "ask", "", question, (), "")
        turns = prompt.dump(prompt.messages(item, passages=passages))
        [answer] = self.answerer.answer([Ask(item, "rag", 0, "generation", turns)])
        if "reply" not in answer:
            raise RunError(
                f"the question, {len(passages)} passages and a reply of {MAX_NEW_TOKENS} tokens do not fit the "
                f"{self.answerer.reader.room:,} tokens of {self.name}; ask in fewer words, or give a smaller --k"
            )
        reply = str(answer["reply"]).strip()
        cited = citations(reply, passages)
        shown = tuple(
            Shown(passage.number, hit.id, hit.source, hit.title, _whole(passage, hit), hit.id in cited.cited)
            for passage, hit in zip(passages, hits, strict=False)  # the last hits may not have fitted
        )
        parts = cut(reply, passages)
        return Answered(question, self.mode, reply, parts, shown, cited.cited, cited.unknown, "cut" in answer)


def open_asker(model: str, index: Path, *, mode: Mode | None = None, k: int = 3) -> Asker:
    """A model in a folder and an index, opened; mode None takes fusion where the index has vectors, else bm25.

    Raises ModelError for a model or encoder that cannot be loaded, RunError for no index, a mode that it was not built
    for, or a package that is not installed.
    """
    for module, package in {"torch": "torch", "transformers": "transformers", "lm_eval": "lm-eval"}.items():
        if find_spec(module) is None:
            raise missing(package)
    retriever = Retriever(index)
    chosen = mode or retriever.modes[-1]
    retriever.search([], k, chosen)  # opens all that the mode needs: what is wrong there is said before a model loads
    return Asker(model, _answerer(model), retriever, chosen, k)


def _answerer(path: str) -> Answerer:
    """The model in a folder, in 16 bits on a GPU, answering one question at a time."""
    import torch

    from qilin import models
    from qilin.evaluate.local import Reader, as_lm
    from qilin.recipe import Model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    said = Model(path=path, dtype="bfloat16" if device == "cuda" else "float32")
    tokenizer = models.load_tokenizer(said, "cpt")  # a reply needs no generation marks in a template
    reader = Reader(models.load_model(said).eval().to(device), tokenizer, batch_size=1)
    return Answerer(as_lm(reader), {"path": path}, reader.end, MAX_NEW_TOKENS, reader)


def cut(reply: str, passages: Sequence[Passage]) -> tuple[Part, ...]:
    """A reply cut where it cites; its parts are the whole of it.

    >>> cut("多饮水[1-2]。", [Passage("a/1@0", 1, "", "水")])
    (Part(text='多饮水[', numbers=(), unknown=()),
     Part(text='1-2', numbers=(1,), unknown=(2,)),
     Part(text=']。', numbers=(), unknown=()))
    """
    known = {passage.number for passage in passages}
    parts, end = [], 0
    for mention in mentions(reply, known):
        parts.append(Part(reply[end : mention.start]))
        own = tuple(number for number in mention.numbers if number in known)
        unknown = tuple(number for number in mention.numbers if number not in known)
        parts.append(Part(reply[mention.start : mention.end], own, unknown))
        end = mention.end
    return tuple(part for part in (*parts, Part(reply[end:])) if part.text)


def _whole(passage: Passage, hit: Hit) -> str:
    return passage.text if hit.text.rstrip().endswith(passage.text) else f"{passage.text}…"


def show(found: Answered) -> str:
    """An answered question as text for a terminal: passages, reply, what it cites, and the note."""
    return _CONTROLS.sub("", "\n".join(_lines(found)))


def _lines(found: Answered) -> Iterator[str]:
    yield f"Passages ({found.mode}):" if found.passages else f"Passages ({found.mode}): none was found"
    for passage in found.passages:
        yield f"  {_named(passage)}"
        yield textwrap.indent(passage.text, "      ")
    yield "\nReply:"
    yield textwrap.indent("".join(map(_marked, found.parts)) or "(empty)", "  ")
    if found.unfinished:
        yield f"  (cut off after {MAX_NEW_TOKENS} tokens)"
    by_id = {passage.id: passage for passage in found.passages}
    yield "\nCited:" if found.cited else "\nCited: no passage"
    for id_ in found.cited:
        yield f"  {_named(by_id[id_])}"
    if found.unknown:
        yield f"  not shown, so made up: {', '.join(map(str, found.unknown))}"
    yield f"\n{found.note}"


def _named(passage: Shown) -> str:
    return " · ".join(part for part in (f"[{passage.number}] {passage.title}", passage.source, passage.id) if part)


def _marked(part: Part) -> str:
    if not part.unknown:
        return part.text
    return f"{part.text} (not shown{': ' + ', '.join(map(str, part.unknown)) if part.numbers else ''})"
