"""What each reason of a reject means, in words: for `chimed why`, the report, the cards and docs/errors.md.

Reasons of verdicts stand with their rules in `chimed.quality`; those of readers and parsers, which raise `RowError`,
stand here. A source of your own may raise others.
"""

from chimed.quality import REASONS

READING: dict[str, str] = {
    # the file
    "empty-file": "The file, or the archive, holds no row.",
    "unsupported-format": "The file is of a kind that no reader reads, such as a PDF or an old Office file.",
    "truncated-archive": "The archive, or the compressed file, ends before it is complete.",
    "damaged-archive": "The archive, or the compressed file, is damaged from here on.",
    "nested-archive": "An archive within an archive, or a table too large to be read inside one.",
    "unsupported-archive": "The archive uses a compression that cannot be read.",
    "encrypted-member": "The member of the archive needs a password.",
    "unsafe-path": "The member of the archive leads out of it, or is a link.",
    "suspicious-archive": "The member of the archive unpacks to so many times its size that it may be a bomb.",
    "broken-parquet": "The Parquet file is damaged from here on.",
    "broken-arrow": "The Arrow file is damaged from here on.",
    "broken-arrow-stream": "The Arrow stream is damaged from here on.",
    "broken-xlsx": "The spreadsheet is damaged from here on.",
    # the row
    "bad-encoding": "Some bytes of the row are no text in the encoding of its file.",
    "nul-bytes": "NUL bytes stand in the row: the file was never completely downloaded or written.",
    "row-too-large": "The row is larger than any that a source is known to have.",
    "field-too-large": "A field is larger than any that a source is known to have: often a quote is not closed.",
    "broken-csv": "The table breaks off or has a cell that cannot be read here.",
    "unclosed-quote": "A quote that is opened in this row of the table is not closed to the end of the file.",
    "wrong-column-count": "The row of the table has more or fewer cells than the header.",
    "broken-json": "The row is no JSON.",
    "not-an-object": "The row is JSON, but no object: a number, a text or a list of something else.",
    "not-joined": "What completes the row stands in another file, which is not there or does not know it.",
    # the record
    "unknown-columns": "The row has none of the forms in which its source is known to circulate.",
    "parse-failed": "The row has the form of its source, but a value of a kind that nobody expected.",
    "no-record": "The parser of the source found nothing in the row.",
    "not-text": "A value that should be text is something else.",
}

PARSING: dict[str, str] = {
    "no-answer": "The row has no answer, no reply, or no key to its options.",
    "no-question": "The row has no question, or what comes before the reply does not end with the user.",
    "no-options": "The exam item has no options.",
    "no-text": "Nothing that could be read is left of the text.",
    "no-name": "The entry, or an end of the fact, has no name.",
    "no-tail": "The fact has nothing at its far end but an empty mark or a bare amount.",
    "no-fact": "The row sorts entries and says nothing about them.",
    "no-facts": "The entry has nothing but its name.",
    "options-out-of-order": "The letters of the options do not run A, B, C without a gap.",
    "one-of-several": "The item has several right options, of which its key names one, or another.",
    "answer-counts-from-zero": "The key counts the options from 0, which other copies count from 1.",
    "not-adopted": "The answer was drawn by chance from another question.",
    "unknown-role": "A turn is spoken by somebody who is neither user, assistant nor system.",
    "turns-not-objects": "The turns of the conversation are not objects with a role and a content.",
    "turns-not-parallel": "The conversation has not as many questions as answers.",
    "history-not-pairs": "The earlier turns are not pairs of a question and an answer.",
    "pairs-not-lists": "The questions and answers of the conversation are not pairs.",
    "pairs-not-objects": "The questions and answers of the case are not objects.",
    "not-a-consultation": "The block of text lacks a part that a consultation has.",
    "not-a-triple": "The line is not made of a head, a relation and a tail.",
    "not-a-fact": "An end of the fact is blank, or both are the same.",
    "unknown-relation": "The relation is none that the source is known to have between such ends.",
    "dose-without-prescription": "The dose of a herb without the prescription in which it is so.",
    "lost-character": "A name has a character that was lost upstream.",
    "truncated": "A name that upstream cut short.",
    "no-disease": "The head of the fact is no disease: people, an operation, a treatment.",
    "abbreviation": "The name is an abbreviation that may stand for several things.",
    "test-entry": "An entry that somebody made to try the site out.",
    "unmarked-book": "The book lacks the marks that part its chapters.",
}

MEANINGS = {**READING, **PARSING, **REASONS}


def meaning(reason: str) -> str:
    """A reason in words; any `no-<column>` is known.

    >>> meaning("no-answer"), meaning("no-chief-complaint")
    ('The row has no answer, no reply, or no key to its options.', 'The row has nothing under chief-complaint.')
    """
    if reason in MEANINGS:
        return MEANINGS[reason]
    if reason.startswith("no-"):
        return f"The row has nothing under {reason.removeprefix('no-')}."
    return "The parser of the source could not use the row."
