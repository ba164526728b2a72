"""All the texts of a few facts at once, as `chimed.graph` gives them some at a time."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from chimed import graph


def documents(facts: pa.Table) -> pa.Table:
    return _whole(graph.documents, graph.DOCUMENTS, facts)


def questions(facts: pa.Table) -> pa.Table:
    return _whole(graph.questions, graph.QUESTIONS, facts)


def corrupted(facts: pa.Table) -> pa.Table:
    """In the order of their ids."""
    pairs = _whole(graph.corrupted, graph.PAIRS, facts)
    return pairs.take(pc.sort_indices(pairs["id"]))


def _whole(make: Callable[[pa.Table], Iterator[pa.Table]], schema: pa.Schema, facts: pa.Table) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *make(graph.canonical(facts))]).combine_chunks()
