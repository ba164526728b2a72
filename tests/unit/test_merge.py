"""A merged model answers as base and adapter together; what cannot be merged is one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install -e '.[train]'")
pytest.importorskip("peft", reason="needs the train extra: pip install -e '.[train]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from qilin import run  # noqa: E402
from qilin.errors import ModelError, RunError  # noqa: E402
from qilin.merge import merge  # noqa: E402

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] }}<|end|>{% endgeneration %}{% else %}{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a finished run with a random LoRA adapter, above a random base beside it."""
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: n for n, c in enumerate([*marks, *alphabet])}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", extra_special_tokens=marks[1:]
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    folder = tmp_path / "run"
    tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lineage = {
        "stage": "sft",
        "kind": "adapter",
        "template": None,
        "base": {"path": str(tmp_path / "base"), "model": run.weights_digest(tmp_path / "base")},
        "parents": [],
    }
    done = {"stage": "sft", "kind": "adapter", "lineage": lineage, "weights": run.weights_digest(folder)}
    run.write_json(folder / run.DONE, done)
    return folder


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.arange(4, 40)[None]).logits.float()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_merged_model_answers_as_before(trained: Path, tmp_path: Path, dtype: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = merge(trained, tmp_path / "merged", dtype)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert str(merged.dtype) == f"torch.{dtype}"
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    plain = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, trained))
    assert float((adapted - plain).abs().max()) > 0.1, "the adapter changes nothing: the test shows nothing"
    # Processors sum 32-bit numbers in orders of their own: on one of them 1.2e-5 was seen.
    assert torch.allclose(logits(merged), adapted, atol=5e-5 if dtype == "float32" else 0.2)
    assert done.difference < 5e-5
    assert (done.cast < 5e-5) == (dtype == "float32")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == TEMPLATE
    lineage = json.loads((tmp_path / "merged/qilin.json").read_text())
    assert lineage["kind"] == "model"
    assert lineage["merged"]["run"] == str(trained)


def test_what_cannot_be_merged_is_one_sentence(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    with pytest.raises(RunError, match="is there already"):
        merge(trained, tmp_path / "taken", "bfloat16")
    with pytest.raises(RunError, match="no run was finished here"):
        merge(tmp_path / "base", tmp_path / "out", "bfloat16")
    done = json.loads((trained / "run.json").read_text())
    run.write_json(trained / "run.json", {**done, "kind": "model"})
    with pytest.raises(RunError, match="no adapter"):
        merge(trained, tmp_path / "out", "bfloat16")
    run.write_json(trained / "run.json", {**done, "weights": "0"})
    with pytest.raises(RunError, match="has changed since the run"):
        merge(trained, tmp_path / "out", "bfloat16")
    run.write_json(trained / "run.json", done)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "base/model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "base/model.safetensors")
    with pytest.raises(ModelError, match="have changed since"):
        merge(trained, tmp_path / "out", "bfloat16")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_answers_otherwise_writes_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())  # forgets the adapter
    with pytest.raises(ModelError, match="nothing is written"):
        merge(trained, tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()
