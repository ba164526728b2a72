"""TRL takes the stages as they are: its trainers prepare them without a change."""

import string
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the train extra: pip install -e '.[train]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def built(chimed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trl") / "out"
    done = chimed("build", "--stage", "all", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random Llama of a few thousand parameters, loaded from disk, and a byte-level tokenizer with a template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    marks = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate([*marks, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", additional_special_tokens=marks[1:]
    )
    fast.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder), fast


def _arguments(config: Any, folder: Path, **more: object) -> Any:
    return config(output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", max_length=None, **more)


def test_sft_and_cpt_are_prepared_by_the_sft_trainer(built: Path, model: Any, tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    network, tokenizer = model
    for stage, more in (("sft", {"assistant_only_loss": True}), ("cpt", {})):
        rows = load_dataset(str(built / stage), split="train", cache_dir=str(tmp_path / "cache"))
        arguments = _arguments(SFTConfig, tmp_path, **more)
        trainer = SFTTrainer(network, args=arguments, train_dataset=rows, processing_class=tokenizer)
        assert len(trainer.train_dataset) == len(rows)
        text = tokenizer.decode(trainer.train_dataset[0]["input_ids"])
        reply = rows[0]["messages"][-1]["content"] if stage == "sft" else rows[0]["text"]
        assert reply.strip(string.whitespace) in text


def test_dpo_is_prepared_by_the_dpo_trainer(built: Path, model: Any, tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    network, tokenizer = model
    rows = load_dataset(str(built / "dpo"), split="train", cache_dir=str(tmp_path / "cache"))
    trainer = DPOTrainer(network, args=_arguments(DPOConfig, tmp_path), train_dataset=rows, processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(rows)
    prepared = trainer.train_dataset[0]
    assert {"prompt_ids", "chosen_ids", "rejected_ids"} <= set(prepared) or "prompt_input_ids" in prepared
