"""The output layer on a processor gives what TRL's own gives."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install -e '.[train]'")
kernels = pytest.importorskip("trl.kernels", reason="needs the train extra: pip install -e '.[train]'")

from qilin import processor  # noqa: E402

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")


def inputs(dtype: Any, bias: bool, count: int = 300) -> tuple[Any, ...]:
    """300 tokens of width 16 over 900 words: more than one part of either."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, 16, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(900, 16, generator=draw).to(dtype).requires_grad_()
    offset = torch.randn(900, generator=draw).to(dtype).requires_grad_() if bias else None
    return hidden, weight, offset, torch.randint(0, 900, (count,), generator=draw)


def both(dtype: Any, bias: bool) -> list[tuple[Any, list[Any]]]:
    """What TRL's function and ours give, and the gradients of a weighted sum of the log-probabilities."""
    found = []
    theirs = kernels.ChunkedLogProbFunction
    for function in (theirs, processor._Chosen(theirs)):
        *layer, targets = inputs(dtype, bias)
        given = function.apply(*layer, targets, 1.0, 256, None, 1.0, OUTPUTS)
        (given[0] * torch.linspace(0.1, 1, 300)).sum().backward()
        found.append((given, [part.grad for part in layer if part is not None]))
    return found


@pytest.mark.parametrize("bias", [False, True])
def test_the_same_as_trl_in_float32(bias: bool) -> None:
    (theirs, their_grads), (ours, our_grads) = both(torch.float32, bias)
    for one, two in zip(theirs, ours, strict=True):
        assert (one is None) is (two is None)
        if one is not None:
            torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)
    for one, two in zip(their_grads, our_grads, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_near_trl_in_sixteen_bits() -> None:
    (theirs, their_grads), (ours, our_grads) = both(torch.bfloat16, False)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    for one, two in zip(their_grads, our_grads, strict=True):
        assert two.dtype == one.dtype
        assert float((two.float() - one.float()).norm() / one.float().norm()) < 0.01


def test_what_it_cannot_answer_goes_to_trl() -> None:
    class Theirs:
        @staticmethod
        def apply(*_: Any) -> tuple[str]:
            return ("theirs",)

    chosen = processor._Chosen(Theirs)
    layer = inputs(torch.float32, False)
    for rest in ((0.7, 256, None, 1.0), (1.0, 256, 30.0, 1.0), (1.0, 256, None, 0.5)):
        assert chosen.apply(*layer, *rest, OUTPUTS) == ("theirs",)
    assert chosen.apply(*layer, 1.0, 256, None, 1.0, (*OUTPUTS, "log_sum_sq_probs")) == ("theirs",)


def test_nothing_is_kept_where_nothing_is_learned() -> None:
    *layer, targets = inputs(torch.float32, False)
    with torch.no_grad():
        given = processor.LogProbs.apply(*layer, targets, torch.is_grad_enabled())
    assert given[0].grad_fn is None
    assert torch.isfinite(given[1]).all()
    *layer, targets = inputs(torch.float32, False, count=0)
    empty = processor.LogProbs.apply(*layer, targets, True)
    empty[0].sum().backward()
    assert not layer[0].grad.any()


def test_trl_uses_it_once_installed() -> None:
    from trl.trainer import utils

    processor.install()
    once = utils._ChunkedLogProbFunction
    processor.install()
    assert utils._ChunkedLogProbFunction is once
    assert isinstance(once, processor._Chosen)
    assert utils._use_triton(torch.device("cpu"))
