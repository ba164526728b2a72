"""TRL's fused output layer as a processor computes it fast: the same log-probabilities in half the time of a step.

Without Triton TRL folds logits in float32, a part of the vocabulary at a time, computes them again for the gradient,
multiplies that in float32, and does all this for tokens without a label too. With a vocabulary of 150,000 and a small
model that is more than the rest of the model takes. Here logits are computed once, of tokens with a label alone, and
their probabilities are kept in the precision of the computation. On a GPU nothing changes.
"""

from typing import Any

import torch

LOGGED = {"log_probs", "entropy", "mean_logits", "is_top1"}
PART = 128  # tokens whose logits are held in float32 at once: each is a whole vocabulary


class LogProbs(torch.autograd.Function):  # type: ignore[misc]
    """The log-probabilities of targets under an output layer, and what TRL's trainers log, which has no gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, learns: bool) -> tuple[Any, ...]:
        """Per token: log-probability of the target, entropy, mean logit, whether the target is the likeliest.

        hidden: tokens x width. weight: vocabulary x width. learns: whether a gradient will be asked for.
        """
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        ctx.kinds = hidden.dtype, weight.dtype
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        count = len(hidden)
        kept = hidden.new_empty((count, len(weight)) if learns else (0, 0))
        log_probs, entropy, mean = (hidden.new_empty(count, dtype=torch.float32) for _ in range(3))
        likeliest = hidden.new_empty(count, dtype=torch.bool)
        for begin in range(0, count, PART):
            part = slice(begin, begin + PART)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
            mean[part] = logits.mean(-1)
            logs = logits.log_softmax(-1)
            log_probs[part] = logs.gather(-1, targets[part, None])[:, 0]
            likeliest[part] = logs.argmax(-1) == targets[part]
            probs = torch.exp(logs, out=logits)
            entropy[part] = -torch.linalg.vecdot(probs, logs)
            if learns:
                kept[part] = probs
        ctx.save_for_backward(hidden, weight, targets, kept)
        ctx.mark_non_differentiable(entropy, mean, likeliest)
        return log_probs, entropy, mean, likeliest

    @staticmethod
    def backward(ctx: Any, grad: Any, *_: Any) -> tuple[Any, ...]:
        """The gradients of hidden states, weight and bias, where they are asked for."""
        hidden, weight, targets, probs = ctx.saved_tensors
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[:3]
        # d log p(target) / d logit is 1 at the target, less the probability
        grad = grad.to(probs.dtype)
        logits = probs.mul_(-grad[:, None])
        logits[torch.arange(len(targets)), targets] += grad
        return (
            (logits @ weight).to(ctx.kinds[0]) if of_hidden else None,
            (logits.t() @ hidden).to(ctx.kinds[1]) if of_weight else None,
            logits.sum(0, dtype=torch.float32) if of_bias else None,
            None,
            None,
        )


def install() -> None:
    """Let TRL's trainers use `LogProbs` on a processor; models that change their logits are left to TRL."""
    from trl.trainer import utils

    theirs, compact = utils._ChunkedLogProbFunction, utils._use_triton
    if isinstance(theirs, _Chosen):
        return
    utils._ChunkedLogProbFunction = _Chosen(theirs)
    utils._use_triton = lambda device: device.type == "cpu" or compact(device)  # there: tokens with a label alone


class _Chosen:
    """Stands for TRL's function: hands a call to `LogProbs` where that can answer it, and to TRL's own elsewhere."""

    def __init__(self, theirs: Any) -> None:
        self.theirs = theirs

    def apply(self, hidden: Any, weight: Any, bias: Any, targets: Any, *rest: Any) -> tuple[Any, ...]:
        temperature, _, softcap, scale, outputs = rest
        plain = (temperature, softcap, scale) == (1.0, None, 1.0) and LOGGED.issuperset(outputs)
        if hidden.device.type != "cpu" or not plain:
            return tuple(self.theirs.apply(hidden, weight, bias, targets, *rest))
        log_probs, entropy, mean, likeliest = LogProbs.apply(hidden, weight, bias, targets, torch.is_grad_enabled())
        return log_probs, entropy, None, mean, likeliest
