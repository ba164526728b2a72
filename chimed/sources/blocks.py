"""Kernels that read consultations from text blocks, for `chimed.sources.consultations`.

They stand in one file, since numba's cache does not notice that a kernel of another file changed. Some are written into
the one that calls them: to hand them all these arrays takes longer than what they do. Texts are UTF-8 in arrays of
bytes; a list of texts is where each one starts (n + 1) and the bytes of all of them.
"""

from typing import Any

import numpy as np
from numba import njit

from chimed.characters import decode

# What a line is: empty, marks alone, text, one of those that part a block, text without the date behind it on which it
# was filled in, what doctors send at a click, or odd; TORN makes all blocks odd.
_BLANK, _MARKS, _TEXT, ID, FACULTY, DESCRIPTION, DIALOGUE, DIAGNOSIS, PATIENT, DOCTOR = range(10)
_DATED, SENT, _ODD, TORN = range(10, 14)
_FREE, LEFT_OUT = -1, -2  # in place of a field: text under none, and what stands in a field that is left out
_MOST = 64  # fields of a turn
_NAME = 10  # characters of the name of a field


@njit(cache=True, nogil=True)
def _space(code: Any) -> Any:
    """Whether str.strip takes a character off; line ends are not asked about."""
    if code <= 0x20:
        return 9 <= code <= 13 or code >= 0x1C
    if code < 0x2000:
        return code in (0x85, 0xA0, 0x1680)
    return code <= 0x200A or code in (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)


@njit(cache=True, nogil=True)
def _equal(one: Any, i: Any, end: Any, other: Any, j: Any, stop: Any) -> Any:
    """Whether the bytes from i to end are those from j to stop."""
    same = end - i == stop - j
    k = 0
    while same and i + k < end:
        same = one[np.uint64(i + k)] == other[np.uint64(j + k)]
        k += 1
    return same


@njit(cache=True, nogil=True)
def _which(data: Any, i: Any, end: Any, texts: Any) -> Any:
    """Which of the texts the bytes from i to end are, or -1."""
    starts, raw = texts
    for place in range(len(starts) - 1):
        if _equal(data, i, end, raw, starts[place], starts[place + 1]):
            return place
    return -1


@njit(cache=True, nogil=True)
def _colon(data: Any, i: Any, end: Any) -> Any:
    """The byte behind the colon at byte i, or -1 where there is none."""
    if i < end and data[i] == 0x3A:
        return i + 1
    if i + 2 < end and data[i] == 0xEF and data[i + 1] == 0xBC and data[i + 2] == 0x9A:
        return i + 3
    return -1


@njit(cache=True, nogil=True)
def _bracket(data: Any, i: Any, end: Any, last: Any) -> Any:
    """The first byte from i on where a wide bracket stands, the left one (last=0x88) or the right one (0x89)."""
    while i + 2 < end and not (data[i] == 0xEF and data[i + 1] == 0xBC and data[i + 2] == last):
        i += 1
    return i


@njit(cache=True, nogil=True)
def _field(data: Any, i: Any, end: Any, fields: Any) -> Any:
    """The field that a line fills in, _FREE for none, and where its value begins, as `meddialog._FIELD`."""
    names, own = fields[0], fields[1]
    at, count = i, 0
    while at < end and _colon(data, at, end) < 0 and _bracket(data, at, at + 3, 0x88) > at:
        at += decode(data, at)[1]
        count += 1
        if count > _NAME:
            return _FREE, i
    name = _which(data, i, at, names) if at < end and count > 1 else -1
    if name < 0:
        return _FREE, i
    if _colon(data, at, end) < 0:
        at = _bracket(data, at, end, 0x89) + 3
    value = _colon(data, at, end)
    if value < 0:
        return _FREE, i
    while value < end and _space(decode(data, value)[0]):
        value += decode(data, value)[1]
    return np.int64(own[name]), value


@njit(cache=True, nogil=True)
def _told(data: Any, i: Any, end: Any, own: Any, fields: Any) -> Any:
    """Where what stands in a field begins, `end` where that is nothing, as `meddialog._told`; -1 for a blank there."""
    (starts, raw), (none, nothing), answered = fields[2], fields[3], fields[4]
    if own >= 0:
        size = starts[own + 1] - starts[own]
        if _equal(data, i, min(i + size, end), raw, starts[own], starts[own + 1]) and end - i - size > 2:
            behind = _colon(data, i + size, end)
            i = behind if behind == i + size + 3 else i
    while i < end:
        code, size = decode(data, i)
        if code not in (0x3002, 0xFF0C, 0xFF1A, 0x3A):
            break
        i += size
    if i == end or (own >= 0 and not answered[own] and _which(data, i, end, (none, nothing)) >= 0):
        return end
    return -1 if _space(decode(data, i)[0]) or data[i] == 0x0A else i


@njit(cache=True, nogil=True)
def _put(data: Any, i: Any, end: Any, out: Any, o: Any) -> Any:
    """Copy the bytes from i to end to byte o; where they end there."""
    for k in range(end - i):
        out[np.uint64(o + k)] = data[np.uint64(i + k)]
    return o + end - i


@njit(cache=True, nogil=True)
def _named(data: Any, end: Any, fields: Any) -> Any:
    """Whether a text begins as a field does that is called otherwise upstream: it may be said again by that field."""
    (starts, raw), first = fields[2], np.int64(0)
    for k in range(len(starts) - 1):
        size = starts[k + 1] - starts[k]
        if size < end and _equal(data, first, size, raw, starts[k], starts[k + 1]) and _colon(data, size, end) > 0:
            return True
    return False


@njit(cache=True, nogil=True, inline="always")
def _form(data: Any, lines: Any, rows: Any, fields: Any, state: Any) -> Any:
    """Write the lines of a turn from byte `o` of `out` on, as `meddialog.form`; where they end, -1 for what it is left.

    rows: numbers of the lines. state: room for as many bytes as the lines have and for fields, `out`, `o`.
    """
    (scratch, own, begins, ends), out, o = state
    own[0], begins[0], ends[0] = _FREE, 0, 0
    count, size = 1, 0
    for row in rows:
        name, at = _field(data, lines[row, 0], lines[row, 1], fields)
        if name != _FREE:
            if count == len(own):
                return -1
            own[count], begins[count] = name, size
            count += 1
        elif size > begins[count - 1]:
            scratch[size] = 0x0A
            size += 1
        size = _put(data, at, lines[row, 1], scratch, size)
        ends[count - 1] = size
    for k in range(count):
        begin = _told(scratch, begins[k], ends[k], own[k], fields) if own[k] != LEFT_OUT else ends[k]
        if begin < 0 or (k == 0 and count > 1 and begin < ends[0] and (begin or _named(scratch, ends[0], fields))):
            return -1
        begins[k] = begin
    return _joined(scratch, own[:count], begins, ends, fields, (out, o))


@njit(cache=True, nogil=True, inline="always")
def _joined(told: Any, own: Any, begins: Any, ends: Any, fields: Any, state: Any) -> Any:
    """Write what stands in each field behind its name, each line once, the field `last` behind the others."""
    out, o = state
    starts, raw = fields[2]
    last, unless, other = fields[5]
    first = o
    for end in range(2):
        for k in range(len(own)):
            said = begins[k] >= ends[k] or (own[k] == last) != (end == 1)
            for j in range(len(own)):
                if (j < k and own[j] == own[k]) or (own[k] == unless and own[j] == other):
                    said |= _equal(told, begins[j], ends[j], told, begins[k], ends[k])
            if said:
                continue
            if o > first:
                out[o] = 0x0A
                o += 1
            if own[k] >= 0:
                o = _put(raw, starts[own[k]], starts[own[k] + 1], out, o)
                out[o], out[o + 1], out[o + 2] = 0xEF, 0xBC, 0x9A
                o += 3
            o = _put(told, begins[k], ends[k], out, o)
    return o


@njit(cache=True, nogil=True)
def _word(code: Any) -> Any:
    """1 where a character is part of a word or a plus sign, 0 where it is not, -1 where it takes Unicode to tell."""
    if code < 0x80:
        letter = 0x61 <= (code | 0x20) <= 0x7A
        return 1 if letter or 0x30 <= code <= 0x39 or code in (0x2B, 0x5F) else 0
    if 0x3400 <= code <= 0x9FFF and not 0x4DC0 <= code < 0x4E00:
        return 1
    wide = 0xFF01 <= code <= 0xFF0F or 0xFF1A <= code <= 0xFF20
    if wide or 0x2010 <= code <= 0x205E or 0x3001 <= code <= 0x3004 or 0x3008 <= code <= 0x3020:
        return 0
    return -1


@njit(cache=True, nogil=True)
def _marked(data: Any, i: Any, end: Any, marks: Any, place: Any) -> Any:
    """Whether a mark begins at byte i; those that begin with the character there stand from `place` on."""
    starts, raw = marks
    while place < len(starts) - 1 and raw[starts[place] + 2] == data[i + 2] and raw[starts[place] + 1] == data[i + 1]:
        size = starts[place + 1] - starts[place]
        if i + size <= end and _equal(data, i, i + size, raw, starts[place], starts[place + 1]):
            return True
        place += 1
    return False


@njit(cache=True, nogil=True)
def _undated(data: Any, i: Any, end: Any, dated: Any) -> Any:
    """Where a line ends without the date in brackets behind it, as in `meddialog._WRITTEN`."""
    stop = _bracket(data, end - 3, end, 0x89) if data[end - 1] != 0x29 else end - 1
    at = stop - 16
    if at - 3 < i or stop == end - 2 or _which(data, at + 10, stop, dated) < 0:
        return end
    for k in range(10):
        dash = k in (4, 7)
        if dash != (data[at + k] == 0x2D) or not (dash or 0x30 <= data[at + k] <= 0x39):
            return end
    if data[at - 1] == 0x28:
        return at - 1
    return at - 3 if data[at - 3] == 0xEF and data[at - 2] == 0xBC and data[at - 1] == 0x88 else end


@njit(cache=True, nogil=True)
def _rest(data: Any, i: Any, end: Any) -> Any:
    """Where a line from byte i on ends without blanks, and whether it holds a word, as `_word`."""
    stop, word = i, 0
    while i < end:
        code, size = decode(data, i)
        i += size
        stop = stop if _space(code) else i
        word = word if word > 0 else _word(code) or word
    return stop, word


@njit(cache=True, nogil=True)
def _opens(data: Any, i: Any, end: Any) -> Any:
    """What a line that begins with id= is: the start of a block, perhaps one (TORN), or text."""
    kind = ID if i + 3 < end else _TEXT
    for at in range(i + 3, end):
        if data[at] >= 0x80 or data[at] in (9, 0x20):
            kind = TORN
        elif not 0x30 <= data[at] <= 0x39:
            return _TEXT
    return kind


@njit(cache=True, nogil=True)
def classify(data: Any, ends: Any, told: Any, lines: Any, kinds: Any) -> None:
    """Fill in where the text of each line begins and ends without blanks, shape (n, 2), and what the line is."""
    marks, first, dated, parts, part_kinds = told
    i: Any = np.int64(0)
    for row in range(len(ends)):
        start, end = i, ends[row]
        begin, stop, word, odd = -1, i, 0, 0
        while i < end:
            code, size = decode(data, i)
            if not _space(code):
                begin = i if begin < 0 else begin
                stop = i + size
                if word <= 0:
                    word = _word(code) or word
                if size == 3 and first[code]:
                    odd += _marked(data, i, end, marks, first[code] - 1)
            i += size
        i = end + 1
        if begin < 0:
            continue
        lines[row, 0], lines[row, 1] = begin, stop
        part = _which(data, begin, stop, parts)
        kinds[row] = _TEXT if part < 0 else part_kinds[part]
        if data[begin] == 0x69 and stop - begin > 2 and data[begin + 1] == 0x64 and data[begin + 2] == 0x3D:
            kind = _opens(data, begin, stop)
            strict = kind == _TEXT or (begin == start and stop == end)
            kinds[row] = kind if strict else TORN
        elif part < 0 and odd:
            short = _undated(data, begin, stop, dated)
            if odd > 1 or short == stop:
                kinds[row] = _ODD
            else:
                lines[row, 1], word = _rest(data, begin, short)
                kinds[row] = _DATED if word > 0 else _ODD
        elif part < 0 and word < 1:
            kinds[row] = _ODD if word else _MARKS


@njit(cache=True, nogil=True)
def consultations(data: Any, lines: Any, kinds: Any, starts: Any, fields: Any) -> Any:
    """The turns of all blocks that are read here: their text and where each ends, their roles (1 for a reply), how many
    each block has (0: left to `parse`), and of the blocks read the line on the doctor and where each ends.
    """
    out, scratch = np.empty(2 * len(data) + 64, np.uint8), np.empty(len(data) + 64, np.uint8)
    room = scratch, np.zeros(_MOST, np.int64), np.zeros(_MOST, np.int64), np.zeros(_MOST, np.int64)
    faculty, texts = np.empty(len(data), np.uint8), np.empty(len(kinds), np.int64)
    ends, roles = np.zeros(len(kinds) + 1, np.int64), np.zeros(len(kinds), np.int8)
    turns, lengths = np.zeros(len(starts) - 1, np.int64), np.zeros(len(starts), np.int64)
    turn, read = np.int64(0), 0
    for block in range(len(turns)):
        state = (room, texts, out, ends, roles, turn)
        until, doctor = _block(data, lines, kinds, starts[block : block + 2], fields, state)
        if until == turn:
            continue
        turns[block] = until - turn
        turn = until
        size = lengths[read]
        if doctor >= 0:
            for at in range(lines[doctor, 0], lines[doctor, 1]):
                faculty[size] = data[at]
                size += 1
        read += 1
        lengths[read] = size
    return out, ends[: turn + 1], roles[:turn], turns, faculty, lengths[: read + 1]


@njit(cache=True, nogil=True, inline="always")
def _turn(data: Any, lines: Any, kinds: Any, rows: Any, fields: Any, state: Any) -> Any:
    """Write what the lines from the first of `rows` to the second say, as `form`, which says the rest."""
    room, texts, out, o = state
    count, sent = 0, False
    for row in range(rows[0], rows[1]):
        if kinds[row] in (_BLANK, _MARKS, SENT):
            sent |= kinds[row] == SENT
        elif sent:  # whose pattern may take something of what follows
            return -1
        else:
            texts[count] = row
            count += 1
    return _form(data, lines, texts[:count], fields, (room, out, o))


@njit(cache=True, nogil=True, inline="always")
def _block(data: Any, lines: Any, kinds: Any, rows: Any, fields: Any, state: Any) -> Any:
    """Add the turns of one block to those there are, `turn` of them; how many there are then, as many as before where
    the block is left to `parse`, and the line on the doctor, or -1.
    """
    room, texts, out, ends, roles, turn = state
    before, kept = turn, turn
    part, doctor, since, role = _BLANK, -1, 0, 0
    told = advised = labelled = gap = False
    for row in range(rows[0] + 1, rows[1] + 1):
        kind = kinds[row] if row < rows[1] else ID
        if kind == _ODD:
            return before, -1
        label = part == DIALOGUE and kind in (PATIENT, DOCTOR)
        if not label and not ID <= kind <= DIAGNOSIS:
            gap |= kind == _BLANK
            if part == FACULTY and doctor < 0 and kind != _BLANK:
                doctor = row
                if kind == _DATED:
                    return before, -1
            continue
        if part > FACULTY:
            # The dialogue has no labels on lines of their own; the summary may be what was said before.
            if (part == DIALOGUE and not label and not labelled) or (part == DIAGNOSIS and since < row and not gap):
                return before, -1
            if role == 0 or turn > before:  # who asks comes first
                same = turn > before and roles[turn - 1] == role
                begin = ends[turn]
                out[begin] = 0x0A
                end = _turn(data, lines, kinds, (since, row), fields, (room, texts, out, begin + same))
                if end < 0:
                    return before, -1
                if end > begin + same:
                    roles[turn - same] = role
                    turn += not same
                    ends[turn] = end
                    kept = turn if role == 1 else kept
        if label:
            labelled, role = True, int(kind == DOCTOR)
        elif kind != ID:
            again = (kind == DESCRIPTION and told) or (kind == DIAGNOSIS and advised)
            if again:  # shown again, perhaps
                return before, -1
            part, role, labelled, gap = kind, int(kind != DESCRIPTION), False, False
            told |= kind > FACULTY
            advised |= kind == DIAGNOSIS
        since = row + 1
    return kept, doctor
