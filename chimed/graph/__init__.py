"""Knowledge graphs as text: a readable document an entity, questions with their answers, and corrupted facts.

`canonical` facts go in, tables come out, some rows at a time: all the text of a large graph is never there at once.

Facts of all sources meet under the name of their head. The same facts give the same text in whatever order they come:
they are sorted by head, relation and id first, and every choice of wording hangs on a hash of the words themselves.
"""

from chimed.graph.corrupt import PAIRS, corrupted
from chimed.graph.merge import canonical
from chimed.graph.text import DOCUMENTS, QUESTIONS, documents, questions

__all__ = ["DOCUMENTS", "PAIRS", "QUESTIONS", "canonical", "corrupted", "documents", "questions"]
