"""Makes a tiny base model: a random Llama of under two million parameters, its tokenizer trained on a built corpus.

python recipes/tiny/model.py out/cpt models/tiny

The folder is what transformers loads: config, weights, tokenizer. The same data and seed give the same bytes. It knows
nothing: whatever it can do after the recipes beside this file, it learned from them.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 1536
END_OF_TEXT, TURN, END_OF_TURN = MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer, so that no text is unknown to it, with the marks of the ChatML template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, extra_special_tokens=[TURN, END_OF_TURN]
    )


def make(stage: Path, folder: Path, *, width: int = 128, layers: int = 4, seed: int = 42) -> None:
    """Write a tokenizer that is trained on a cpt stage, and a random Llama of so many layers, to a folder."""
    files = sorted(stage.glob("train-*.parquet"))
    if not files:
        sys.exit(f"{stage}: no train-*.parquet; give the cpt folder of a build")
    tokenizer = train_tokenizer([text for file in files for text in pq.read_table(file)["text"].to_pylist()])
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
