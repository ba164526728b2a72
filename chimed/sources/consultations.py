"""Consultations in text blocks, many at once: the compiled reader behind `chimed.sources.meddialog`.

It gives the turns of a block byte for byte as `meddialog.parse` does, and leaves to it each block with anything out of
the ordinary: what the platform wrote, prescriptions, lines of which it cannot tell whether they hold a word.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chimed.characters import Bytes, from_buffers
from chimed.records import TURNS
from chimed.sources.blocks import (
    DESCRIPTION,
    DIAGNOSIS,
    DIALOGUE,
    DOCTOR,
    FACULTY,
    ID,
    LEFT_OUT,
    PATIENT,
    SENT,
    TORN,
    classify,
    consultations,
)
from chimed.sources.spec import Many

_PARTS = {
    "Doctor faculty": FACULTY,
    "Description": DESCRIPTION,
    "Dialogue": DIALOGUE,
    "Diagnosis and suggestions": DIAGNOSIS,
    **{f"{who}{colon}": PATIENT for who in ("病人", "患者") for colon in ":："},
    **{f"医生{colon}": DOCTOR for colon in ":："},
}
_ROLES = pa.array(["user", "assistant"])


def _texts(texts: Collection[str]) -> tuple[npt.NDArray[np.int64], Bytes]:
    """Texts for kernels: where each starts (n + 1), and their bytes one behind the other."""
    raw = [text.encode() for text in texts]
    return np.cumsum([0, *map(len, raw)]), np.frombuffer(bytearray().join(raw), np.uint8)


@dataclass(frozen=True, slots=True)
class Forms:
    """How the forms of patients and doctors are read.

    marks: a block that holds one is left to `parse`. dated: what is said of a date in brackets behind a line. sent:
    lines that doctors send at a click. names: of fields upstream -> here, "" for those that are left out. nothing:
    values that say nothing, except in the fields `answered`. last: the field that stands last. unless: a field that is
    left out where the other says the same.
    """

    marks: Collection[str]
    dated: Collection[str]
    sent: Collection[str]
    names: Mapping[str, str]
    nothing: Collection[str]
    answered: Collection[str]
    last: str
    unless: tuple[str, str]


class Reader:
    """Reads blocks with forms of one kind; department: of the line that says where a doctor works."""

    def __init__(self, forms: Forms, department: Callable[[str], str]) -> None:
        marks = sorted({*forms.marks, *(f"{did}{end}" for did in forms.dated for end in "）)")})
        first = np.zeros(1 << 16, np.int16)  # by character: the place of the first mark that begins so, from 1
        for place, mark in reversed(list(enumerate(marks, 1))):
            first[ord(mark[0])] = place
        fields = sorted(set(forms.names.values()) - {""})
        parts = {**_PARTS, **dict.fromkeys(forms.sent, SENT)}
        kinds = np.array(list(parts.values()), np.uint8)
        self._lines = (_texts(marks), first, _texts(forms.dated), _texts(parts), kinds)
        self._fields = (
            _texts(forms.names),
            np.array([fields.index(own) if own else LEFT_OUT for own in forms.names.values()], np.int8),
            _texts(fields),
            _texts(forms.nothing),
            np.array([own in forms.answered for own in fields]),
            np.array([fields.index(own) for own in (forms.last, *forms.unless)], np.int8),
        )
        self._department = department

    def __call__(self, text: bytes, name: str) -> Many | None:
        """The rows of whole blocks, the first at the start of the text; None where they must be read one by one."""
        try:
            pa.array([text], pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            return None
        if b"\0" in text or b"\r" in text or not text.endswith(b"\n"):
            return None
        data = np.frombuffer(bytearray(text), np.uint8)  # not read-only: a kernel has one form then
        ends = np.flatnonzero(data == ord("\n"))
        lines, kinds = np.zeros((len(ends), 2), np.int64), np.zeros(len(ends), np.uint8)
        classify(data, ends, self._lines, lines, kinds)
        starts = np.append(np.flatnonzero(kinds == ID), len(kinds))
        if kinds[: starts[0]].any() or (kinds == TORN).any():
            return None
        out, ends, roles, turns, faculty, lengths = consultations(data, lines, kinds, starts, self._fields)
        alone = {}
        for place in np.flatnonzero(turns == 0).tolist():
            begin, end = (len(text) if at == len(kinds) else int(lines[at, 0]) for at in starts[place : place + 2])
            alone[place] = {"text": text[begin : end - 1].decode(), "name": name}
        said = pa.StructArray.from_arrays(
            [_ROLES.take(pa.array(roles)), from_buffers(ends.astype(np.int32), out)], ["role", "content"]
        )
        offsets = np.append(0, np.cumsum(turns[turns > 0])).astype(np.int32)
        told = from_buffers(lengths.astype(np.int32), faculty).dictionary_encode()
        departments = pa.array(map(self._department, told.dictionary.to_pylist()), pa.string())
        columns = (pa.ListArray.from_arrays(offsets, said, type=TURNS), departments.take(told.indices))
        return Many(len(turns), "dialogue", columns, alone)
