"""Prepared rows are those that TRL makes, and documents packed by us stay apart in its collator."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qilin import template
from qilin.prepare import prepare
from qilin.recipe import Recipe

from .test_prepare import CHATS, PAIRS, PASSAGES, documents

pytest.importorskip("trl", reason="the train extra is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own

Build = Callable[..., Path]
Make = Callable[..., Recipe]


@pytest.fixture
def model(tokenizer: Any) -> Any:
    """A tiny random Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()


def trl_rows(folder: Path, model: Any, tokenizer: Any, out: Path, **arguments: Any) -> Any:
    """What SFTTrainer makes of a stage folder."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    column = {"cpt": "text", "sft": "messages"}[folder.name]
    data = Dataset.from_parquet([str(path) for path in folder.glob("train-*")], columns=[column], cache_dir=str(out))
    settings = SFTConfig(output_dir=str(out), packing=True, use_cpu=True, bf16=False, **arguments)
    return SFTTrainer(model, settings, train_dataset=data, processing_class=tokenizer).train_dataset


def pieces(rows: Any) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and labels of each document in packed rows."""
    found: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for row in rows:
        at = 0
        for size in row["seq_lengths"]:
            found[tuple(row["input_ids"][at : at + size]), tuple(row["labels"][at : at + size])] += 1
            at += size
    return found


def test_passages_are_those_of_trl(tokenizer: Any, model: Any, build: Build, recipe: Make, tmp_path: Path) -> None:
    # A lone EOS at the end of a document is ours to avoid, so these documents have none.
    folder = build("cpt", train=[text for text in PASSAGES if len(tokenizer.encode(text)) % 64])
    ours = prepare(recipe(folder), tokenizer)
    theirs = trl_rows(folder, model, tokenizer, tmp_path / "trl", max_length=64, packing_strategy="bfd_split")
    assert pieces(ours.load("train")) == pieces(theirs)
    assert ours.splits["train"].rows <= len(theirs)


def test_conversations_are_those_of_trl(tokenizer: Any, model: Any, build: Build, recipe: Make, tmp_path: Path) -> None:
    tokenizer.chat_template = template.read("chatml")
    folder = build("sft", train=CHATS)
    ours = prepare(recipe(folder, length=200), tokenizer)
    theirs = trl_rows(folder, model, tokenizer, tmp_path / "trl", max_length=200, assistant_only_loss=True)
    # The line break after the last reply carries no loss: we leave it out.
    expected = Counter({(ids[:-1], labels[:-1]): count for (ids, labels), count in pieces(theirs).items()})
    assert ours.splits["train"].truncated == ours.splits["train"].dropped == 0
    assert pieces(ours.load("train")) == expected


def test_pairs_are_those_of_trl(tokenizer: Any, model: Any, build: Build, recipe: Make, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer.chat_template = template.read("baichuan2")  # nothing stands after a reply, so nothing is left out
    folder = build("dpo", train=PAIRS)
    files = [str(path) for path in folder.glob("train-*")]
    data = Dataset.from_parquet(files, columns=["prompt", "chosen", "rejected"], cache_dir=str(tmp_path / "trl"))
    settings = DPOConfig(output_dir=str(tmp_path / "trl"), max_length=64, use_cpu=True, bf16=False)
    theirs = DPOTrainer(
        model, ref_model=copy.deepcopy(model), args=settings, train_dataset=data, processing_class=tokenizer
    )
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = prepare(recipe(folder), tokenizer).load("train")
    assert [[row[name] for name in columns] for row in rows] == [
        [row[name] for name in columns] for row in theirs.train_dataset
    ]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_documents_in_a_row_do_not_see_each_other(
    tokenizer: Any, model: Any, build: Build, recipe: Make, attention: str
) -> None:
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model.set_attn_implementation(attention)
    tokenizer.chat_template = template.read("chatml")
    made = prepare(recipe(build("sft", train=CHATS)), tokenizer)
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(
        list(made.load("train").select(range(4)))
    )
    labels = batch.pop("labels")
    with torch.no_grad():
        packed = model(**batch, use_cache=False).logits[0]  # as TRL calls it; a cache would end the isolation
        at = 0
        for ids, own in documents(made):
            if at == len(packed):
                break
            alone = model(input_ids=torch.tensor([ids])).logits[0]
            assert (packed[at : at + len(ids)] - alone).abs().max() < 1e-5
            assert labels[0, at : at + len(ids)].tolist() == own  # the first label of a document is masked anyway
            at += len(ids)
    assert at == len(packed)
