"""Byte-level BPE here gives the ids of the tokenizers library."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin.bytepairs import BytePairs

from .conftest import TEXTS

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

words = st.sampled_from(
    ["高血压", "患者", " ", "\n", "don't", "12.5", "<|im_end|>", "<|endoftext|>", "，", "\r\n", "I'LL"]
)


def bytepairs(backend: str) -> BytePairs | None:
    from tokenizers import Tokenizer

    return BytePairs.of(backend, Tokenizer.from_str(backend))


texts = st.lists(words | st.text(max_size=8), max_size=12).map("".join)


@settings(max_examples=150, deadline=None)
@given(batch=st.lists(texts, min_size=1, max_size=4))
def test_ids_are_those_of_the_library(tokenizer: Any, batch: list[str]) -> None:
    backend = tokenizer.backend_tokenizer
    pairs = bytepairs(backend.to_str())
    assert pairs
    for own, text in zip(pairs.encode(batch), batch, strict=True):
        assert own
        assert own[0].tolist() == backend.encode(text, add_special_tokens=False).ids


@settings(max_examples=60, deadline=None)
@given(text=texts, data=st.data())
def test_edges_stand_before_the_token_that_begins_there(tokenizer: Any, text: str, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pairs = bytepairs(tokenizer.backend_tokenizer.to_str())
    assert pairs
    own = pairs.encode([text], [edges])[0]
    if own:
        ids, places = own
        assert [tokenizer.decode(ids[:place]) for place in places] == [text[:edge] for edge in edges]


def test_words_are_forgotten_in_time(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qilin.bytepairs._WORDS", 20)
    pairs = bytepairs(tokenizer.backend_tokenizer.to_str())
    assert pairs
    for _ in range(3):
        for text in TEXTS:
            own = pairs.encode([text])[0]
            assert own
            assert own[0].tolist() == tokenizer.backend_tokenizer.encode(text).ids


def test_odd_texts_are_left_to_the_library(tokenizer: Any) -> None:
    pairs = bytepairs(tokenizer.backend_tokenizer.to_str())
    assert pairs
    assert pairs.encode(["长" * 5000]) == [None]
    assert pairs.encode(["高血压"], [[1]]) == [None]


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda form: form["model"].update(dropout=0.1),
    lambda form: form["model"].update(byte_fallback=True),
    lambda form: form.update(normalizer={"type": "NFKC"}),
    lambda form: form["added_tokens"][0].update(lstrip=True),
    lambda form: form.update(pre_tokenizer={"type": "Whitespace"}),
    lambda form: form["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
    lambda form: form["pre_tokenizer"]["pretokenizers"].insert(0, form["pre_tokenizer"]["pretokenizers"][0]),
]


@pytest.mark.parametrize("change", CHANGES)
def test_tokenizers_of_other_kinds_are_left_to_the_library(tokenizer: Any, change: Callable[..., Any]) -> None:
    form = json.loads(tokenizer.backend_tokenizer.to_str())
    change(form)
    assert bytepairs(json.dumps(form)) is None


def test_sentencepiece_is_left_to_the_library(sentencepiece: Any) -> None:
    assert bytepairs(sentencepiece.backend_tokenizer.to_str()) is None


@pytest.mark.parametrize("composed", [True, False])
def test_composed_characters(tokenizer: Any, composed: bool) -> None:
    from tokenizers import Tokenizer

    form = json.loads(tokenizer.backend_tokenizer.to_str())
    form["normalizer"] = {"type": "NFC"}
    pairs = bytepairs(json.dumps(form))
    text = "Ångström" if composed else "A\u030angstro\u0308m"
    # The probe itself is not composed, so the library was trusted; composed texts are encoded here, others there.
    assert pairs
    own = pairs.encode([text])[0]
    assert (own is not None) == composed
    if own:
        assert own[0].tolist() == Tokenizer.from_str(json.dumps(form)).encode(text).ids


def test_whole_words_before_merges(tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    form = json.loads(tokenizer.backend_tokenizer.to_str())
    form["model"]["ignore_merges"] = True
    form["model"]["merges"] = form["model"]["merges"][:50]
    pairs = bytepairs(json.dumps(form))
    assert pairs
    for text in TEXTS:
        own = pairs.encode([text])[0]
        assert own
        assert own[0].tolist() == Tokenizer.from_str(json.dumps(form)).encode(text).ids
