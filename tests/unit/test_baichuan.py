"""A Baichuan model as a Llama: equal logits and equal tokens, on a tiny random model of Baichuan's layout."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install -e '.[train]'")
sentencepiece = pytest.importorskip("sentencepiece", reason="needs sentencepiece: pip install -e '.[baichuan]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from qilin.baichuan import import_model  # noqa: E402
from qilin.errors import ModelError, RunError  # noqa: E402

HEADS, WIDTH, LAYERS = 4, 32, 2
TEXTS = [
    "百日咳是由百日咳杆菌所致的急性呼吸道传染病，儿童多见。",
    "高血压病人要按时服药，少吃盐，定期量血压。",
    "Take 2 tablets daily; HbA1c 7.2 % and blood pressure 120/80 mmHg.",
    "感冒一般不用抗生素。多喝水，多休息，三天不退烧就去医院。",
]


def tokenizer(folder: Path) -> int:
    """A small sentencepiece BPE model with bytes and reserved tokens, as Baichuan's; gives its size."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=512,
        byte_fallback=True,
        character_coverage=1.0,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["<reserved_106>", "<reserved_107>"],
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return int(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size())


def make(folder: Path, *, second: bool, pickled: bool = False) -> dict[str, Any]:
    """A random model folder of Baichuan's layout: fused projections, a head that is normed in the second version."""
    from safetensors.torch import save_file

    folder.mkdir()
    size = tokenizer(folder)
    torch.manual_seed(1)
    weights = {"model.embed_tokens.weight": torch.randn(size, WIDTH), "lm_head.weight": torch.randn(size, WIDTH)}
    weights["model.norm.weight"] = torch.rand(WIDTH) + 0.5
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        weights |= {
            at + "self_attn.W_pack.weight": torch.randn(3 * WIDTH, WIDTH) / 6,
            at + "self_attn.o_proj.weight": torch.randn(WIDTH, WIDTH) / 6,
            at + "self_attn.rotary_emb.inv_freq": torch.rand(WIDTH // HEADS // 2),
            at + "mlp.gate_proj.weight": torch.randn(2 * WIDTH, WIDTH) / 6,
            at + "mlp.up_proj.weight": torch.randn(2 * WIDTH, WIDTH) / 6,
            at + "mlp.down_proj.weight": torch.randn(WIDTH, 2 * WIDTH) / 8,
            at + "input_layernorm.weight": torch.rand(WIDTH) + 0.5,
            at + "post_attention_layernorm.weight": torch.rand(WIDTH) + 0.5,
        }
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    config = {
        "architectures": ["BaichuanForCausalLM" if second else "BaiChuanForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
        "model_type": "baichuan",
        "vocab_size": size,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "model_max_length": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        **({"z_loss_weight": 0} if second else {}),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_baichuan.py").write_text("raise SystemExit('downloaded code ran')")
    return weights


def norm(x: Any, weight: Any) -> Any:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def rotate(x: Any) -> Any:
    half = x.shape[-1] // 2
    place = torch.arange(x.shape[-2])[:, None] / 10000 ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    cos, sin = torch.cat([place.cos()] * 2, -1), torch.cat([place.sin()] * 2, -1)
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def forward(weights: dict[str, Any], ids: Any, *, second: bool) -> Any:
    """The forward pass of `modeling_baichuan.py`, 7B, written down anew."""
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):
        own = {name.split(".", 3)[3]: value for name, value in weights.items() if f"layers.{layer}." in name}
        packed = norm(x, own["input_layernorm.weight"]) @ own["self_attn.W_pack.weight"].T
        q, k, v = packed.unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(1, 2, 0, 3)
        scores = rotate(q) @ rotate(k).transpose(-1, -2) / (WIDTH // HEADS) ** 0.5
        scores = scores + torch.full_like(scores, -torch.inf).triu(1)
        x = x + (scores.softmax(-1) @ v).permute(1, 0, 2).flatten(1) @ own["self_attn.o_proj.weight"].T
        y = norm(x, own["post_attention_layernorm.weight"])
        gate = torch.nn.functional.silu(y @ own["mlp.gate_proj.weight"].T)
        x = x + (gate * (y @ own["mlp.up_proj.weight"].T)) @ own["mlp.down_proj.weight"].T
    head = weights["lm_head.weight"]
    return norm(x, weights["model.norm.weight"]) @ (torch.nn.functional.normalize(head) if second else head).T


@pytest.mark.parametrize(("second", "pickled"), [(False, False), (True, True)])
def test_logits_are_equal(tmp_path: Path, second: bool, pickled: bool) -> None:
    from transformers import AutoModelForCausalLM

    weights = make(tmp_path / "baichuan", second=second, pickled=pickled)
    import_model(tmp_path / "baichuan", tmp_path / "llama")
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "llama", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    ids = torch.tensor([5, 300, 7, 411, 90, 12, 33])
    with torch.no_grad():
        found, wanted = model(ids[None]).logits[0], forward(weights, ids, second=second)
    assert torch.allclose(found, wanted, atol=1e-4), float((found - wanted).abs().max())


def test_tokens_are_equal_and_reserved_ones_are_one_token(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    make(tmp_path / "baichuan", second=True)
    import_model(tmp_path / "baichuan", tmp_path / "llama")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "baichuan/tokenizer.model"))
    ours = AutoTokenizer.from_pretrained(tmp_path / "llama")
    odd = ["百日咳  杆菌\n\n服药 ", "😀 Ünïcode ﷽", "\ttab 120/80mmHg", "罕见字：𠮷䶮"]
    for text in TEXTS + odd:
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert ids == theirs.EncodeAsIds(text), text
        assert ours.decode(ids) == text
    assert ours("<reserved_106>你好", add_special_tokens=False)["input_ids"][0] == theirs.PieceToId("<reserved_106>")
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (1, 2, 0)
    assert "<reserved_106>" in ours.apply_chat_template([{"role": "user", "content": "你好"}], tokenize=False)


def test_what_cannot_be_imported_is_one_sentence(tmp_path: Path) -> None:
    make(tmp_path / "baichuan", second=True)
    config = json.loads((tmp_path / "baichuan/config.json").read_text())
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(RunError, match="is there already"):
        import_model(tmp_path / "baichuan", tmp_path / "taken")
    (tmp_path / "baichuan/config.json").write_text(json.dumps({**config, "num_hidden_layers": 40}))
    with pytest.raises(ModelError, match="13B"):
        import_model(tmp_path / "baichuan", tmp_path / "out")
    (tmp_path / "baichuan/config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    with pytest.raises(ModelError, match="'qwen2'"):
        import_model(tmp_path / "baichuan", tmp_path / "out")
    (tmp_path / "baichuan/config.json").write_text(json.dumps(config))
    (tmp_path / "baichuan/model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        import_model(tmp_path / "baichuan", tmp_path / "out")
    assert not (tmp_path / "out").exists()
