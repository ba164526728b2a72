"""Operations, utilisation and the estimate of memory, against published figures and against autograd itself."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest

from qilin.flops import GPUS, Setup, Size, find_gpu, flops_per_token, memory, mfu, size_of

pytestmark = pytest.mark.filterwarnings("ignore")

# llm-foundry's 7B: N and shape as its table of throughput gives them.
SEVEN = Size(6_658_859_008, 6_658_859_008, 411_041_792, 32, 32, 4096, 16384, 50368)


@pytest.mark.parametrize(
    ("gpu", "length", "speed", "published"),
    [("H100", 2048, 10_643, 0.4644), ("H100", 4096, 8_611, 0.404), ("A100", 2048, 4_641, 0.642)],
)
def test_published_utilisation(gpu: str, length: int, speed: int, published: float) -> None:
    found = mfu(speed, flops_per_token(SEVEN, length), GPUS[gpu].peak)
    assert found == pytest.approx(published, abs=0.0005)


def test_an_adapter_costs_two_thirds_and_its_share() -> None:
    full = flops_per_token(SEVEN, 2048)
    adapter = replace(SEVEN, trained=SEVEN.parameters // 100)
    assert flops_per_token(adapter, 2048) == pytest.approx(full * 2.01 / 3)
    assert flops_per_token(SEVEN, 2048, reference=True) == pytest.approx(full * 4 / 3)
    assert flops_per_token(adapter, 2048, reference=True) == pytest.approx(full * 3.01 / 3)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("rtx3090", "RTX 3090"),
        ("NVIDIA L40S", "L40S"),
        ("AMD Instinct MI300X", None),
        ("", None),
    ],
)
def test_names_of_gpus(said: str, name: str | None) -> None:
    found = find_gpu(said)
    assert (found and found.name) == name


def llama(**keys: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, "num_key_value_heads": 2, "num_hidden_layers": 2, **keys}))


def test_the_size_of_a_model() -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    model = llama()
    own = sum(weight.numel() for weight in model.parameters())
    size = size_of(model)
    assert size == Size(own, own, 2 * 64 * 64, 2, 4, 64, 160, 64)
    assert size_of(llama(tie_word_embeddings=True)).embeddings == 64 * 64
    with torch.device("meta"):
        assert size_of(llama()) == size
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    adapted = size_of(peft.get_peft_model(model, lora))
    assert (adapted.parameters, adapted.trained) == (own, 2 * 2 * (64 + 64) + 64 * 64)
    assert adapted.adapted
    assert not size.adapted


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(
    ("dtype", "compute"), [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_keeps(dtype: str, compute: str, adapted: bool, checkpointing: bool) -> None:
    peft = pytest.importorskip("peft")

    def kept(layers: int, length: int) -> int:
        model = llama(num_hidden_layers=layers).to(getattr(torch, dtype)).train()
        if adapted:
            model = peft.get_peft_model(model, peft.LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
            model.enable_input_require_grads()
        if checkpointing:
            model.gradient_checkpointing_enable()
        return saved(model, length, compute)

    import torch

    # Differences take away what does not grow with layers and tokens, such as autocast's copies of weights.
    a_layer = [kept(3, length) - kept(2, length) for length in (128, 64)]
    size = replace(size_of(llama()), trained=1) if adapted else size_of(llama())
    both = [Setup(1, length, dtype=dtype, compute=compute, checkpointing=checkpointing) for length in (128, 64)]
    layer = [memory(replace(size, layers=3), one).activations - memory(size, one).activations for one in both]
    measured, estimate = a_layer[0] - a_layer[1], layer[0] - layer[1]
    assert measured * 0.95 <= estimate <= measured * 1.25


def saved(model: Any, length: int, compute: str) -> int:
    """Bytes of the tensors that a forward pass of one row leaves for the backward pass, weights aside."""
    import torch

    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    held: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            held[place] = tensor
        return tensor

    autocast: Any = torch.autocast("cpu", torch.bfloat16) if compute == "bfloat16" else nullcontext()
    # Two documents in the row, as prepared rows have them.
    ids, places = torch.zeros(1, length, dtype=torch.long), torch.arange(length // 2).repeat(2)[None]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        # Held until the storages are counted: a freed one could give its address to the next.
        output = model(ids, position_ids=places, logits_to_keep=1, use_cache=False)
        total = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    assert output is not None
    return total


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_is_near_what_a_step_allocates(checkpointing: bool) -> None:
    torch, trl = pytest.importorskip("torch"), pytest.importorskip("trl.trainer.utils")
    model = llama(vocab_size=1536, hidden_size=256, intermediate_size=768, num_hidden_layers=6)
    trl.add_fused_lm_head(model)
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.train().parameters())
    ids, places = torch.randint(0, 1536, (2, 512)), torch.arange(128).repeat(4).expand(2, -1)

    def step() -> None:
        model(ids, position_ids=places, labels=ids, fused_lm_head=True, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    sizes = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    states = 3 * 4 * size_of(model).parameters  # weights and Adam's moments, there before and after
    peak = states + max(accumulate(sizes))
    estimate = memory(size_of(model), Setup(2, 512, checkpointing=checkpointing))
    assert estimate.total - estimate.overhead == pytest.approx(peak, rel=0.2)


def test_sixteen_bytes_a_weight_and_how_they_are_shared() -> None:
    """Table 1 of the ZeRO paper: 16 bytes a weight with Adam in mixed precision; each stage shares more of it."""

    def states(**keys: Any) -> float:
        found = memory(SEVEN, Setup(1, 2048, "float32", "bfloat16", **keys))
        return (found.weights + found.gradients + found.optimizer) / SEVEN.parameters

    layers = 2 * 4 * (1 - SEVEN.embeddings / SEVEN.parameters) / SEVEN.layers
    assert states(gpus=8, sharding="zero2") == pytest.approx(2 + 14 / 8)
    assert states(gpus=8, sharding="zero3") == pytest.approx(16 / 8 + layers / 2)
    assert states(gpus=8, sharding="fsdp2") == pytest.approx(16 / 8 + layers)
    assert 16 < states() < states(gpus=8, sharding="ddp")


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw_torch_fused", 8),
        ("adamw_8bit", 2),
        ("paged_adamw_8bit", 2),
        ("adamw_torch_4bit", 1),
        ("lion_32bit", 4),
        ("sgd", 0),
        ("adafactor", 0),
        ("ademamix", 12),
    ],
)
def test_optimizer_states(optimizer: str, expected: float) -> None:
    found = memory(SEVEN, Setup(1, 2048, optimizer=optimizer))
    assert found.optimizer / SEVEN.parameters == expected


def test_four_bits_fit_where_sixteen_do_not() -> None:
    adapter = replace(SEVEN, trained=20_000_000)
    sixteen = Setup(1, 2048, "bfloat16", "bfloat16")
    four = replace(sixteen, quantized=True)
    assert memory(adapter, four).total < 8e9
    assert memory(adapter, sixteen).total > 14e9
