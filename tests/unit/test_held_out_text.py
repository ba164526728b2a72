"""Likelihoods of held-out text, and the output layer in float32."""

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the eval and train extras: pip install -e '.[eval,train]'")
pytest.importorskip("transformers")

from qilin.evaluate import texts  # noqa: E402
from qilin.evaluate.local import Head, Reader  # noqa: E402


class Bytes:
    """A tokenizer whose tokens are bytes, with 0 as the end of text."""

    chat_template = None
    eos_token_id = pad_token_id = 0
    eos_token = "\0"

    def encode(self, text: str, **_: bool) -> list[int]:
        return list(text.encode())


def model(dtype: Any, room: int = 64) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=256, initializer_range=0.5, max_position_embeddings=room, **sizes)
    return LlamaForCausalLM(config).to(dtype).eval()


def by_hand(model: Any, ids: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return -sum(float(logits[place, token]) for place, token in enumerate(ids[1:]))


def test_every_token_of_a_text_is_predicted_once() -> None:
    reader = Reader(model(torch.float32), Bytes(), 2)
    text = "头痛多由感冒引起"  # 24 bytes: windows of 9 read 8 each
    ids = [0, *text.encode()]
    tokens, nats = texts._nats(reader, text, 9)
    assert tokens == 24
    assert nats == pytest.approx(sum(by_hand(reader.model, ids[begin : begin + 9]) for begin in (0, 8, 16)), rel=1e-5)
    assert texts._nats(reader, text, 1024) == (24, pytest.approx(by_hand(reader.model, ids), rel=1e-5))
    assert texts._nats(reader, text[:1], 1024)[0] == 3


def test_a_text_longer_than_the_parts_and_the_model() -> None:
    reader = Reader(model(torch.float32, room=300), Bytes(), 2)
    text = "x" * 450
    ids = [0, *text.encode()]
    expected = by_hand(reader.model, ids[:300]) + by_hand(reader.model, ids[299:])
    assert texts._nats(reader, text, 1024) == (450, pytest.approx(expected, rel=1e-5))


def test_bits_a_byte_are_those_of_all_passages_together() -> None:
    lines = [{"set": "a", "bytes": 10, "tokens": 4, "nats": 10 * math.log(2)}]
    lines += [{"set": "a", "bytes": 30, "tokens": 8, "nats": 90 * math.log(2)}]
    found = texts.scores(lines, seed=1)["a"]
    assert found["bits_per_byte"]["value"] == pytest.approx(100 / 40)
    assert found["bits_per_byte"]["low"] == pytest.approx(1)
    assert found["bits_per_byte"]["high"] == pytest.approx(3)
    assert found["perplexity"] == pytest.approx(math.exp(100 * math.log(2) / 12))
    after = [line | {"nats": line["nats"] / 2} for line in lines]
    assert texts.bits(after, lines, seed=1)["value"] == pytest.approx(-50 / 40)
    assert texts.bits(lines[:1], seed=1) == {"value": 1, "low": 1, "high": 1, "n": 1}


def test_sixteen_bits_do_not_make_letters_tie() -> None:
    half = model(torch.bfloat16)
    reader, prompt = Reader(half, Bytes(), 4), tuple(range(1, 20))
    hidden: Any = half.model(torch.tensor([prompt])).last_hidden_state
    exact = (hidden[0, -1].float() @ half.lm_head.weight.float().T).log_softmax(-1)
    asked = [(prompt, (token,)) for token in range(256)]
    given = [score for score, _ in reader.likelihoods(asked)]
    assert given == pytest.approx(exact.tolist(), abs=1e-5)
    rounded = half(torch.tensor([prompt])).logits[0, -1]
    assert len(set(given)) > len(set(rounded.tolist())), "the model's own logits have ties that float32 has not"


def test_the_output_layer_is_as_before_afterwards() -> None:
    half = model(torch.bfloat16)
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    before = half(ids).logits
    with Head(half.get_output_embeddings()).only([2, 1]):
        picked = half(ids).logits
    assert picked.shape == (2, 1, 256)
    assert picked.dtype == torch.float32
    assert picked[1, 0].to(torch.bfloat16).equal(before[1, 1])
    assert half(ids).logits.equal(before)
