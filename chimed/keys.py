"""The keys of a record: what duplicates meet under, what leaks are looked for in, and a hash of its id.

Which words of a record count is decided here and nowhere else: for `texts`, all that a reader would call its text.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chimed.dedup import band_keys, exact_keys
from chimed.dedup.minhash import BANDS
from chimed.leakage import Index
from chimed.records import contents
from chimed.text import fold

PROSE = 50  # characters from which an attribute of a graph is prose that may repeat elsewhere; a shorter one is a value
OPENING, LATER, REPLY = 8, 20, 40  # characters from which a turn of an evaluation item identifies it
PHRASE = 8  # characters below which the stem of an exam is no question by itself
# A stem that names no subject (下列说法正确的是) asks another thing with other options.
BARE = (
    "^(下列|以下|下面)(哪一?[个项种]|各项|有关|的)*(说法|命题|叙述|描述|表述|陈述|判断|选项)中?(不|最)?"
    "(正确|恰当|准确|错误|合理|成立)的?(有|是|为|是?哪一?[个项])?$"
)

KEYS = pa.schema(
    [
        ("id_hash", pa.uint64()),
        ("length", pa.int32()),  # characters of the folded text
        ("group", pa.uint64()),  # rows of different groups are never duplicates
        ("high", pa.uint64()),  # 128-bit hash of what makes rows equal
        ("low", pa.uint64()),
        ("leak", pa.int32()),  # number of the evaluation item this row overlaps, -1 for none
        ("share", pa.float32()),  # of that item's n-grams that stand in this row
        *[(f"b{band:02d}", pa.uint64()) for band in range(BANDS)],
    ]
)


# The columns that `texts` reads.
READ: dict[str, tuple[str, ...]] = {
    "passage": ("text",),
    "fact": ("tail", "tail_type"),
    "dialogue": ("turns",),
    "exam": ("question", "options"),
    "preference": ("prompt", "chosen", "rejected"),
}


def texts(shape: str, table: pa.Table) -> pa.Array:
    """The folded text of each row by which near-duplicates meet; "" for rows that only repeat exactly."""
    return _texts(shape, table, _leaves(shape, table))


def _leaves(shape: str, table: pa.Table) -> pa.ListArray:
    """The folded texts in which leaks are looked for, a list a row."""
    match shape:
        case "dialogue":
            lists = contents(table["turns"])
        case "preference":
            prompt = contents(table["prompt"])
            asked = pc.binary_join(prompt, "\n")
            lists = _pairs(asked, table["chosen"].combine_chunks())
        case "exam":
            lists = _singles(table["question"].combine_chunks())
        case "fact":
            tails = table["tail"].combine_chunks()
            prose = pc.and_(pc.equal(table["tail_type"], "text"), pc.greater_equal(pc.utf8_length(tails), PROSE))
            lists = _singles(pc.if_else(prose.combine_chunks(), tails, ""))
        case _:
            lists = _singles(table["text"].combine_chunks())
    return pa.ListArray.from_arrays(lists.offsets, fold(lists.flatten()))


def _singles(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32)), values)


def _pairs(left: pa.Array, right: pa.Array) -> pa.ListArray:
    both = pa.concat_arrays([left, right]).take(
        pa.array(np.stack([np.arange(len(left)), np.arange(len(left)) + len(left)], 1).ravel())
    )
    return pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * len(left) + 1, 2, dtype=np.int32)), both)


def _texts(shape: str, table: pa.Table, leaves: pa.ListArray) -> pa.Array:
    joined = pc.binary_join(leaves, "")
    match shape:
        case "exam":
            more = fold(pc.binary_join(table["options"].combine_chunks(), ""))
        case "preference":
            more = fold(table["rejected"].combine_chunks())
        case _:
            return joined
    return pc.binary_join_element_wise(joined, more, "")


def _groups(shape: str, table: pa.Table) -> npt.NDArray[np.uint64]:
    """Exam items with other right answers are other items; prose on another head or relation says another thing."""
    match shape:
        case "exam":
            return exact_keys(fold(right_options(table)))[:, 0]
        case "fact":
            head = fold(table["head"].combine_chunks())
            return exact_keys(pc.binary_join_element_wise(head, table["relation"].combine_chunks(), "|"))[:, 0]
        case _:
            return np.zeros(len(table), np.uint64)


def right_options(table: pa.Table) -> pa.Array:
    """The texts of the right options of exam rows, one string a row.

    Letters beyond the options are ignored: `quality` rejects such rows.
    """
    options = table["options"].combine_chunks()
    answer = table["answer"].combine_chunks()
    start = options.offsets.to_numpy()[:-1] - options.offsets[0].as_py()
    size = np.diff(options.offsets.to_numpy())
    flat = options.flatten()
    parts = []
    for place, letter in enumerate("ABCDEFGHIJ"):
        right = pc.match_substring(answer, letter).to_numpy(zero_copy_only=False) & (size > place)
        chosen = flat.take(pa.array(np.where(right, start + place, 0))) if len(flat) else answer
        parts.append(pc.if_else(pa.array(right), chosen, ""))
    return pc.binary_join_element_wise(*parts, "\n")


def key_table(shape: str, table: pa.Table, trains: bool, index: Index | None, lap: Callable[[str], None]) -> pa.Table:
    """The keys of each row of a table (see KEYS). Rows that cannot train get no bands: they repeat only exactly.

    lap: told the name of each step when it ends, to time it.
    """
    leaves = _leaves(shape, table)
    folded = _texts(shape, table, leaves)
    groups = _groups(shape, table)
    lap("fold")
    equal = folded
    if shape == "fact":
        names = [fold(table[name].combine_chunks()) for name in ("head", "tail")]
        equal = pc.binary_join_element_wise(names[0], table["relation"].combine_chunks(), names[1], "|")
    exact = exact_keys(equal)
    item, share = _leaks(shape, table, leaves, index)
    lap("leakage")
    bands = band_keys(folded) if trains else np.zeros((len(table), BANDS), np.uint64)
    bands[item >= 0] = 0
    lap("minhash")
    columns = [exact_keys(table["id"].combine_chunks())[:, 0], pc.utf8_length(folded), groups, exact[:, 0], exact[:, 1]]
    columns += [item, share, *np.ascontiguousarray(bands.T)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, KEYS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=KEYS)


def _leaks(
    shape: str, table: pa.Table, leaves: pa.ListArray, index: Index | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The evaluation item each row overlaps most, -1 for none, and the share of it that stands in the row."""
    item = np.full(len(leaves), -1, np.int32)
    share = np.zeros(len(leaves), np.float32)
    if index is not None:
        hits = index.check(leaves.flatten())
        row = np.repeat(np.arange(len(leaves)), np.diff(leaves.offsets.to_numpy()))
        # The last one written wins: sorted by share, that is the largest; ties go to the lowest item.
        # A name or a few words that an exam asks about stand everywhere: only another exam item equals such a stem.
        phrase = hits.exact & (hits.run < PHRASE)
        if shape == "exam":  # a text a row
            bare = pc.match_substring_regex(leaves.flatten(), BARE).to_numpy(zero_copy_only=False)
            stems = np.flatnonzero(hits.exact & bare)
            options = options_of(shape, table.take(pa.array(stems))).to_pylist()
            phrase[:] = False
            phrase[stems] = [
                not index.asked_alike(leaves.flatten().slice(stem, 1), own.split("\n"))
                for stem, own in zip(stems.tolist(), options, strict=True)
            ]
        found = np.flatnonzero(hits.leak & ~phrase)
        found = found[np.lexsort((-hits.item[found], hits.share[found]))]
        item[row[found]] = hits.item[found]
        share[row[found]] = hits.share[found]
    return item, share


def options_of(shape: str, table: pa.Table) -> pa.Array:
    """The folded options of each row, a line each; "" for what has none."""
    if shape != "exam":
        return pa.repeat("", len(table))
    return folded_options(table["options"].combine_chunks())


def folded_options(options: pa.ListArray) -> pa.Array:
    """Lists of options folded, a line each."""
    starts = pc.subtract(options.offsets, options.offsets[0])
    return pc.binary_join(pa.ListArray.from_arrays(starts, fold(options.flatten())), "\n")


def evaluation_texts(shape: str, table: pa.Table) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """The folded texts of evaluation items that must not stand in a training row, and the row each belongs to.

    Stems of exams; of conversations the opening question, later ones from LATER characters, and the last reply, which
    is the reference, from REPLY: shorter ones are small talk that stands everywhere. Earlier replies are part of what
    is asked, and doctors ask back in the same words all day.
    """
    if shape not in ("exam", "dialogue"):
        return pa.array([], pa.string()), np.zeros(0, np.int32)
    leaves = _leaves(shape, table)
    offsets = leaves.offsets.to_numpy()
    row = np.repeat(np.arange(len(leaves), dtype=np.int32), np.diff(offsets))
    flat = leaves.flatten()
    length = pc.utf8_length(flat).to_numpy()
    wanted = length > 0
    if shape == "dialogue":
        roles = table["turns"].combine_chunks().flatten().field("role")
        asks = pc.equal(roles, "user").to_numpy(zero_copy_only=False)
        nth = np.cumsum(asks) - np.repeat(np.concatenate([[0], np.cumsum(asks)])[offsets[:-1]], np.diff(offsets))
        opens = asks & (nth == 1)
        last = np.zeros(len(asks), bool)
        last[offsets[1:] - offsets[0] - 1] = True
        wanted = (opens & (length >= OPENING)) | (asks & (length >= LATER)) | (~asks & last & (length >= REPLY))
    return flat.filter(pa.array(wanted)), row[wanted]
