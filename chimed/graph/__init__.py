"""Knowledge graphs as text: a readable document an entity, questions with their answers, and corrupted facts.

Facts of all sources meet under the name of their head. The same facts give the same text in whatever order they come:
they are sorted by head, relation and id first, and every choice of wording hangs on a hash of the words themselves.
"""

from chimed.graph.corrupt import PAIRS, corrupted
from chimed.graph.text import DOCUMENTS, QUESTIONS, documents, questions

__all__ = ["DOCUMENTS", "PAIRS", "QUESTIONS", "corrupted", "documents", "questions"]
