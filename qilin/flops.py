"""What training costs: operations a token, the share of a GPU's peak (MFU), and an estimate of memory."""

import re
from dataclasses import dataclass
from typing import Any, Literal

Sharding = Literal["ddp", "zero2", "zero3", "fsdp2"]

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
NF4 = 0.516  # bytes a weight: four bits and 0.127 for the doubly quantised scales (QLoRA, arXiv 2305.14314, section 3)
CONTEXT = 1 << 30  # bytes that the CUDA context, NCCL and the allocator's gaps take
TILE = 4096, 32768  # of the logits, TRL's fused head makes so many at once: tokens, vocabulary


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU. peak: dense bfloat16 operations a second with 32-bit sums. memory: bytes."""

    name: str
    peak: float
    memory: float


# NVIDIA's data sheets; where they print the peak with sparsity, half of it. Older cards have no bfloat16: float16.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("A10", 125e12, 24e9),
        Gpu("A100", 312e12, 80e9),
        Gpu("A100 40GB", 312e12, 40e9),
        Gpu("A30", 165e12, 24e9),
        Gpu("A40", 149.7e12, 48e9),
        Gpu("A6000", 154.8e12, 48e9),
        Gpu("A800", 312e12, 80e9),
        Gpu("B200", 2250e12, 180e9),
        Gpu("H100", 989.5e12, 80e9),  # SXM; the PCIe and NVL cards are slower
        Gpu("H100 NVL", 835.5e12, 94e9),
        Gpu("H100 PCIe", 756.5e12, 80e9),
        Gpu("H20", 148e12, 96e9),
        Gpu("H200", 989.5e12, 141e9),
        Gpu("H800", 989.5e12, 80e9),
        Gpu("L4", 121e12, 24e9),
        Gpu("L40S", 362e12, 48e9),
        Gpu("RTX 3090", 71e12, 24e9),  # with 32-bit sums, as in training: half of what is often quoted
        Gpu("RTX 4090", 165.2e12, 24e9),
        Gpu("RTX 5090", 209.5e12, 32e9),
        Gpu("T4", 65e12, 16e9),
        Gpu("V100", 125e12, 32e9),
    )
}


def find_gpu(name: str) -> Gpu | None:
    """The GPU of a name as people or CUDA say it, None for one that is not listed.

    >>> [gpu.name for text in ("NVIDIA A100-SXM4-40GB", "rtx4090", "NVIDIA H100 80GB HBM3") if (gpu := find_gpu(text))]
    ['A100 40GB', 'RTX 4090', 'H100']
    """
    words = set(re.findall(r"[a-z0-9]+", re.sub(r"\brtx(?=\d)", "rtx ", name.lower())))
    fitting = [gpu for gpu in GPUS.values() if words >= set(gpu.name.lower().split()) - {"rtx"}]
    return max(fitting, key=lambda gpu: len(gpu.name.split()), default=None)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a decoder is. All but `layers` and `heads` are counts of weights or widths of a token's vector.

    parameters: of the model without its adapter. trained: those that learn, the adapter's or the model's. embeddings:
    those in the embeddings and the output head. inner: width of the feed-forward layer.
    """

    parameters: int
    trained: int
    embeddings: int
    layers: int
    heads: int
    width: int
    inner: int
    vocabulary: int

    @property
    def adapted(self) -> bool:
        """Whether an adapter is trained, and not the model."""
        return self.trained < self.parameters


def size_of(model: Any) -> Size:
    """The size of a model as transformers or PEFT holds it, also four-bit, sharded, or on the meta device."""
    config = model.config.get_text_config()
    named = [(name, _count(weight), weight.requires_grad) for name, weight in model.named_parameters()]
    ends = {id(end.weight): _count(end.weight) for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    return Size(
        parameters=sum(count for name, count, _ in named if "lora_" not in name and "modules_to_save" not in name),
        trained=sum(count for _, count, learns in named if learns),
        embeddings=sum(ends.values()),
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        width=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
    )


def flops_per_token(size: Size, length: int, reference: bool = False) -> float:
    """Operations to train one token in rows of `length`: 6N + 12·L·d·s, with an adapter times (2 + trained share) / 3.

    The convention of PaLM (arXiv 2204.02311, appendix B) and llm-foundry: all parameters count, attention over the
    whole row, recomputed activations do not. An adapter saves the part of the backward pass that would give the
    gradients of frozen weights. reference: a forward pass more, for the reference model of DPO.

    >>> seven = Size(6_658_859_008, 6_658_859_008, 411_041_792, 32, 32, 4096, 16384, 50368)
    >>> f"{flops_per_token(seven, 2048):.4g}"
    '4.317e+10'
    """
    full = 6 * size.parameters + 12 * size.layers * size.width * length
    return full * ((2 + min(size.trained / size.parameters, 1)) / 3 + reference / 3)


def mfu(tokens_per_second: float, flops: float, peak: float) -> float:
    """Model FLOPs utilisation: the share of the peak that training uses. All three are of one GPU, or of all.

    >>> round(mfu(10_643, 4.317e10, GPUS["H100"].peak), 3)
    0.464
    """
    return tokens_per_second * flops / peak


def usual_mfu(size: Size) -> float:
    """The share of the peak that published runs of 7B models reach, on the safe side.

    Full: 0.40 to 0.46 on H100 (llm-foundry's table, with and without checkpointing); adapters: 0.31 (Qwen-7B, A100).
    """
    return 0.3 if size.adapted else 0.4


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is trained, as far as it takes memory.

    batch: rows on a GPU at once, both replies of a DPO pair counting. dtype: of the weights. compute: of autocast.
    quantized: the frozen weights are nf4. optimizer: `optim` of transformers. sharding: how GPUs share what they hold.
    """

    batch: int
    length: int
    dtype: str = "float32"
    compute: str = "float32"
    quantized: bool = False
    optimizer: str = "adamw_torch_fused"
    checkpointing: bool = True
    gpus: int = 1
    sharding: Sharding = "ddp"


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that training takes on each GPU at its peak."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    head: float
    overhead: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.head + self.overhead


def memory(size: Size, setup: Setup) -> Memory:
    """An estimate of the memory that training takes on each GPU: a sum of parts that do not all peak at once.

    Weights, gradients and optimizer states as in ZeRO (arXiv 1910.02054, table 1): DeepSpeed holds 16-bit weights and
    32-bit masters, DDP a second copy of the gradients in its buckets. PEFT trains adapters in 32 bits. Activations as
    in arXiv 2205.05198, section 4, with the coefficients that autograd keeps for the gated decoder layer of
    transformers under fused attention (counted, tests/unit/test_flops.py): a layer's residual vectors where it is
    checkpointed, and one layer in full. The head is TRL's fused one: a tile of logits, its gradients in 32 bits.
    """
    narrow, deepspeed = BYTES[setup.compute] == 2, setup.sharding in ("zero2", "zero3") and setup.gpus > 1
    held = 2.0 if deepspeed and narrow else BYTES[setup.dtype]
    each = 4.0 if size.adapted else held  # bytes of a trained weight
    frozen = size.parameters if size.adapted else 0
    four_bit = frozen - size.embeddings if setup.quantized else 0
    learning = size.trained * each
    weights = (frozen - four_bit) * held + four_bit * NF4 + learning
    if setup.sharding in ("zero3", "fsdp2"):  # and two layers gathered at a time
        weights = weights / setup.gpus + 2 * held * (size.parameters - size.embeddings) / size.layers
    elif narrow and not size.adapted and held == 4:
        weights += 2.0 * (size.parameters - size.embeddings)  # the copies that autocast keeps
    masters = deepspeed and narrow  # in 32 bits, and so are their moments
    states = size.trained * (_states(setup.optimizer, 4.0 if masters else each) + (4 if masters else 0))
    gradients = learning * (2 if setup.sharding == "ddp" and setup.gpus > 1 else 1)
    tokens = setup.batch * setup.length
    layer = tokens * _layer(size, setup.length, held, narrow)
    kept = tokens * size.width * held * size.layers + layer if setup.checkpointing else layer * size.layers
    whole = not size.adapted  # an adapter never trains the head
    tile = min(tokens, TILE[0]) * TILE[1] * (2.0 if narrow else 4.0)
    head = tile + 4.0 * (tokens * size.width + whole * size.vocabulary * size.width)
    return Memory(
        weights=weights,
        gradients=gradients / (setup.gpus if setup.sharding != "ddp" else 1),
        optimizer=states / (setup.gpus if setup.sharding != "ddp" else 1),
        activations=kept,
        head=head,
        overhead=CONTEXT,
    )


def _layer(size: Size, length: int, held: float, narrow: bool) -> float:
    """Bytes that autograd keeps for a token in a decoder layer: vectors (norms keep theirs in 32 bits), and the mask.

    A mask, as packed rows need it under sdpa, is a number for each token of the row, and has the keys repeated for
    each head; flash attention needs neither.
    """
    if narrow or held == 2:
        widths, inner, mask = 34 if held == 4 and not size.adapted else 28, 8, 2
    else:
        widths, inner, mask = 32 if size.adapted else 40, 16, 4
    return widths * size.width + inner * size.inner + 4 * size.heads + mask * length


def _states(optimizer: str, each: float) -> float:
    """Bytes of optimizer state a trained weight, by the name that transformers gives the optimizer."""
    moments = 3 if "ademamix" in optimizer else 2 if "adam" in optimizer else 1
    if optimizer in ("adafactor", "sgd", "lomo", "adalomo"):
        return 0.0  # none, or a row and a column of a matrix
    if "4bit" in optimizer:
        return 0.5 * moments
    if "8bit" in optimizer:
        return 1.0 * moments
    return moments * (4.0 if "32bit" in optimizer else each)


def _count(weight: Any) -> int:
    """The numbers in a weight: two in a byte of a four-bit one, all of a sharded one."""
    if hasattr(weight, "ds_numel"):  # DeepSpeed ZeRO-3 leaves an empty tensor in its place
        return int(weight.ds_numel)
    count = int(weight.numel())
    if type(weight).__name__ == "Params4bit":
        count *= 2 * weight.element_size()
    return count
