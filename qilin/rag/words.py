"""BM25 on disk: a tantivy index of the tokens of passages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qilin.errors import RunError
from qilin.rag.tokens import missing

Rows = NDArray[np.int64]

_HEAP = 128_000_000  # bytes that tantivy fills before it writes a segment
# A query's tokens that more than this share of the passages hold are left out: they say little and cost most of the
# time. In a small collection, all are asked for.
_COMMON, _FEW = 0.2, 1000


class Writer:
    """Writes the index of passages, in the order of their rows; complete once `close` has returned."""

    def __init__(self, folder: Path) -> None:
        tantivy = _tantivy()
        folder.mkdir()
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("tokens", tokenizer_name="whitespace", index_option="freq")
        builder.add_integer_field("row", fast=True)
        self._document = tantivy.Document
        self._rows = 0
        try:
            # One thread: the same passages give the same segments.
            self._writer = tantivy.Index(builder.build(), str(folder)).writer(_HEAP, 1)
        except ValueError as error:
            raise OSError(str(error)) from error

    def add(self, passages: Sequence[Sequence[str]]) -> None:
        """Add the tokens of the next passages. Raises OSError when the disk is full."""
        try:
            for tokens in passages:
                self._writer.add_document(self._document(tokens=" ".join(tokens), row=self._rows))
                self._rows += 1
        except ValueError as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        try:
            self._writer.commit()
            self._writer.wait_merging_threads()
        except ValueError as error:
            raise OSError(str(error)) from error


class Searcher:
    """Searches the index in a folder. Raises RunError for a damaged one."""

    def __init__(self, folder: Path) -> None:
        tantivy = _tantivy()
        try:
            index = tantivy.Index.open(str(folder))
            self._searcher = index.searcher()
        except ValueError as error:
            raise RunError(f"{folder} is damaged or of another tantivy ({error}); build the index again") from error
        self._schema = index.schema
        self._query, self._should = tantivy.Query, tantivy.Occur.Should
        self._most = max(_FEW, _COMMON * self._searcher.num_docs)

    def search(self, tokens: Sequence[str], count: int) -> tuple[Rows, NDArray[np.float32]]:
        """The rows of the best passages and their scores, best first. A token that a query repeats counts once."""
        query = self._boolean(tokens)
        if query is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        hits = self._searcher.search(query, count, count=False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return np.array(rows, np.int64), np.array([score for score, _ in hits], np.float32)

    def _boolean(self, tokens: Sequence[str]) -> Any:
        held = {token: self._searcher.doc_freq("tokens", token) for token in dict.fromkeys(tokens)}
        held = {token: passages for token, passages in held.items() if passages}
        rare = [token for token, passages in held.items() if passages <= self._most] or list(held)
        terms = [(self._should, self._query.term_query(self._schema, "tokens", token, "freq")) for token in rare]
        return self._query.boolean_query(terms) if terms else None


def _tantivy() -> Any:
    try:
        import tantivy
    except ModuleNotFoundError as error:
        raise missing("tantivy") from error
    return tantivy
