"""Loading and writing models: safetensors only, no downloaded code, a template that marks replies, a lineage."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qilin import template
from qilin.errors import ModelError, RunError
from qilin.flops import size_of
from qilin.models import lineage, load_model, load_tokenizer, read_config, write_model
from qilin.recipe import Model

pytest.importorskip("transformers", reason="needs chimed[train]")
pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|reserved_0|>"]
UNMARKED = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Llama with a byte-level tokenizer and no chat template or padding token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(TOKENS)
    folder = tmp_path_factory.mktemp("models") / "base"
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=272, bos_token_id=None, eos_token_id=256, num_key_value_heads=1, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "base"))


def change(path: Path, **keys: Any) -> None:
    """Set keys of a JSON file; None takes a key away."""
    data = json.loads(path.read_text("utf-8")) | keys
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}), "utf-8")


def model(folder: Path, **keys: Any) -> Model:
    return Model(path=str(folder), **keys)


def test_a_tokenizer_gets_the_template_and_a_padding_token(base: Path) -> None:
    tokenizer = load_tokenizer(model(base, template="chatml"), "sft")
    assert tokenizer.chat_template == template.read("chatml")
    assert tokenizer.pad_token == "<|reserved_0|>"
    assert len(tokenizer) == 260, "the vocabulary does not grow"


def test_padding_falls_back_to_the_end_of_sequence(base: Path) -> None:
    change(base / "tokenizer_config.json", extra_special_tokens=None)
    text = (base / "tokenizer.json").read_text("utf-8").replace("<|reserved_0|>", "<|other|>")
    (base / "tokenizer.json").write_text(text, "utf-8")
    assert load_tokenizer(model(base), "cpt").pad_token == "<|endoftext|>"


def test_a_padding_token_is_left_alone(base: Path) -> None:
    change(base / "tokenizer_config.json", pad_token="<|im_end|>")
    assert load_tokenizer(model(base), "cpt").pad_token == "<|im_end|>"


def test_no_end_of_sequence(base: Path) -> None:
    change(base / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match="has no end of sequence, so replies would never end; set `eos_token`"):
        load_tokenizer(model(base), "cpt")


def test_no_template(base: Path) -> None:
    assert load_tokenizer(model(base), "cpt").chat_template is None
    with pytest.raises(ModelError, match=r"has no chat template; name one in `model.template`: .*chatml.*\.jinja"):
        load_tokenizer(model(base), "sft")


def test_a_template_without_marks(base: Path) -> None:
    (base / "chat_template.jinja").write_text(UNMARKED, "utf-8")
    assert load_tokenizer(model(base), "cpt").chat_template == UNMARKED
    with pytest.raises(ModelError, match=r"base: the chat template has no {% generation %} marks .*chatml"):
        load_tokenizer(model(base), "sft")
    assert load_tokenizer(model(base, template="chatml"), "sft").chat_template == template.read("chatml")


def test_a_template_whose_tokens_the_tokenizer_lacks(base: Path) -> None:
    with pytest.raises(ModelError, match="no special token of the tokenizer follows a reply"):
        load_tokenizer(model(base, template="llama3"), "sft")


def test_a_template_of_its_own_file(base: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(template.read("chatml") + "{# own #}", "utf-8")
    assert load_tokenizer(model(base, template=str(own)), "dpo").chat_template.endswith("{# own #}")
    with pytest.raises(ModelError, match="neither built in"):
        load_tokenizer(model(base, template=str(tmp_path / "none.jinja")), "dpo")


def test_more_tokens_than_embeddings(base: Path) -> None:
    change(base / "config.json", vocab_size=259)
    with pytest.raises(ModelError, match="the tokenizer has 260 tokens, the model embeddings for 259"):
        load_tokenizer(model(base), "cpt")


def test_the_template_travels_from_sft_to_dpo(base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model(base, template="chatml"), "sft")
    told = {"stage": "sft", "template": template.digest(tokenizer.chat_template), "parents": []}
    out = tmp_path / "sft"
    write_model(load_model(model(base)), tokenizer, out, told)
    assert lineage(out) == told
    assert load_tokenizer(model(out), "dpo").chat_template == tokenizer.chat_template
    assert load_tokenizer(model(out, template="chatml"), "dpo")
    with pytest.raises(
        ModelError, match=r"was tuned with the chat template [0-9a-f]{16}, this recipe uses [0-9a-f]{16}"
    ):
        load_tokenizer(model(out, template="plain"), "dpo")
    change(out / "qilin.json", stage="cpt")
    assert load_tokenizer(model(out, template="plain"), "sft"), "pre-training teaches no template"


def test_a_written_model_stops_at_the_end_of_turn(base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model(base, template="chatml"), "sft")
    write_model(load_model(model(base)), tokenizer, tmp_path / "sft", {"stage": "sft"})
    found = json.loads((tmp_path / "sft" / "generation_config.json").read_text("utf-8"))
    assert found["eos_token_id"] == [256, 258]
    assert found["pad_token_id"] == 259
    write_model(load_model(model(base)), tokenizer, tmp_path / "cpt", {"stage": "cpt"})
    assert json.loads((tmp_path / "cpt" / "generation_config.json").read_text("utf-8"))["eos_token_id"] == [256]


def test_a_written_model_has_equal_logits(base: Path, tmp_path: Path) -> None:
    import torch

    first = load_model(model(base))
    write_model(first, load_tokenizer(model(base), "cpt"), tmp_path / "out", {"stage": "cpt"})
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(first(ids).logits, load_model(model(tmp_path / "out"))(ids).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_and_attention(base: Path, dtype: str) -> None:
    loaded = load_model(model(base, dtype=dtype, attention="eager"))
    assert {str(weight.dtype) for weight in loaded.parameters()} == {f"torch.{dtype}"}
    assert loaded.config._attn_implementation == "eager"


def test_an_attention_that_is_not_there(base: Path) -> None:
    with pytest.raises(ModelError, match=r"base: the model cannot be loaded: .*`attn_implementation"):
        load_model(model(base, attention="fast"))


def test_four_bits(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = model(base, quantization="nf4")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="nf4 needs bitsandbytes; run pip install bitsandbytes"):
        load_model(quantized)
    monkeypatch.undo()
    if not find_spec("bitsandbytes"):
        pytest.skip("needs bitsandbytes")
    loaded = load_model(quantized)
    kinds = {type(weight).__name__ for name, weight in loaded.named_parameters() if "proj" in name}
    assert kinds == {"Params4bit"}
    assert size_of(loaded).parameters == size_of(load_model(model(base))).parameters, (
        "two weights in a byte are two weights"
    )


def test_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="models/none: is no folder here, and the Hub gives no such model"):
        load_model(Model(path="models/none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config.json; model.path is a folder that transformers loads"):
        load_tokenizer(model(tmp_path / "empty"), "cpt")


def test_pickled_weights_are_refused(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has only pickled weights \(pytorch_model.bin\), and a pickle can run code"):
        load_model(model(base))
    (base / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has no weights; put \*.safetensors there"):
        load_model(model(base))


@pytest.mark.parametrize(("kind", "advice"), [("baichuan", "run: qilin import FOLDER"), ("own", "use a model that")])
def test_downloaded_code_never_runs(base: Path, kind: str, advice: str) -> None:
    change(
        base / "config.json",
        model_type=kind,
        auto_map={"AutoConfig": "configuration.Own", "AutoModelForCausalLM": "m.O"},
    )
    (base / "configuration.py").write_text("raise SystemExit('code of the folder ran')", "utf-8")
    with pytest.raises(ModelError, match=f"needs code from the folder, which never runs; .*{advice}"):
        load_model(model(base))
    change(base / "config.json", model_type="llama")
    assert load_model(model(base)).config.model_type == "llama", (
        "an architecture that transformers knows is loaded as its own"
    )


def test_an_adapter_is_to_be_merged_first(base: Path) -> None:
    (base / "adapter_config.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="is an adapter; merge it into its base first: qilin merge RUN --out FOLDER"):
        read_config(str(base))


def test_weights_that_are_cut_off(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="the model cannot be loaded"):
        load_model(model(base))


def test_weights_that_are_missing_or_misshapen(base: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(base / "model.safetensors")
    gone = {name: value for name, value in weights.items() if "norm" not in name}
    save_file(gone, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"5 weights are missing or have another shape, the first is model.layers.0.input"
    ):
        load_model(model(base))
    change(base / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelError, match="14 weights are missing"):
        load_model(model(base))


def test_a_broken_config(base: Path) -> None:
    (base / "config.json").write_text('{"model_type": ', "utf-8")
    with pytest.raises(ModelError, match="base: cannot be read: "):
        load_model(model(base))


@pytest.mark.parametrize(("text", "fault"), [("{", "cannot be read"), ("[]", "found list, not a mapping")])
def test_a_broken_lineage(base: Path, text: str, fault: str) -> None:
    assert lineage(base) is None
    (base / "qilin.json").write_text(text, "utf-8")
    with pytest.raises(ModelError, match=fault):
        lineage(base)


def test_a_full_disk(base: Path, tmp_path: Path) -> None:
    class Full:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError(28, "No space left on device")

    out = tmp_path / "out"
    write_model(load_model(model(base)), load_tokenizer(model(base), "cpt"), out, {"stage": "cpt"})
    with pytest.raises(
        RunError, match=r"the model cannot be written: .*No space left on device; make room and run again"
    ):
        write_model(Full(), load_tokenizer(model(base), "cpt"), out, {"stage": "cpt"})
    assert lineage(out) is None, "what is half written has no lineage"
