"""Small tokenizers and stage folders for the tests of preparation."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chimed.stages import COLUMNS
from qilin import template
from qilin.recipe import Recipe

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>"]
CONTROLS += ["<|eot_id|>", *(f"<reserved_{number}>" for number in (102, 103, 106, 107))]
TEXTS = [
    "高血压患者应低盐饮食，每日食盐不超过6克。You should exercise 30 minutes a day.",
    "百日咳是急性呼吸道传染病。\n症状：咳嗽、发热、咽痛；\n治疗：红霉素 0.25 g，每日三次。",
    "system\nuser\nassistant\n头痛三天，伴恶心呕吐，需要做哪些检查？建议您尽快就医，完善头颅CT检查。",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE tokenizer in the manner of Qwen, with every role token of the built-in templates."""
    transformers = pytest.importorskip("transformers", reason="the train extra is not installed")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    pattern += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=CONTROLS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS * 3, trainer)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<|endoftext|>"
    )
    made.chat_template = template.read("chatml")
    return made


@pytest.fixture(scope="session")
def sentencepiece() -> Any:
    """A tokenizer in the manner of Llama 2 and Baichuan: a blank before the text, bytes for what it does not know."""
    transformers = pytest.importorskip("transformers", reason="the train extra is not installed")
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    symbols = sorted({character for text in TEXTS for character in text if character not in " \n"})
    tokens = [
        *CONTROLS,
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *symbols,
        "血压",
        "高血压",
        "▁高血压",
    ]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    merges = [("血", "压"), ("高", "血压"), ("▁", "高血压")]
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    bpe.add_special_tokens(CONTROLS)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    made.chat_template = template.read("baichuan2")
    return made


def turns(*contents: str, first: str = "user") -> list[dict[str, str]]:
    """Contents as messages, users and assistants in turn."""
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Writes a stage folder as `chimed build` does: build("sft", train=[...], validation=[...])."""

    def write(stage: str, folder: str = "out", **splits: list[Any]) -> Path:
        path = tmp_path / folder / stage
        path.mkdir(parents=True)
        files, rows = {}, {}
        for split, contents in splits.items():
            table = [
                {"id": f"a/{split}#{number}", "source": "a", **_row(stage, x)} for number, x in enumerate(contents)
            ]
            file = path / f"{split}-00000-of-00001.parquet"
            pq.write_table(pa.Table.from_pylist(table, COLUMNS[stage]), file, row_group_size=7)
            files[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
            rows[split] = len(contents)
        (path / "manifest.json").write_text(json.dumps({"stage": stage, "rows": rows, "files": files}))
        return path

    return write


def _row(stage: str, content: Any) -> dict[str, Any]:
    if stage == "dpo":
        prompt, chosen, rejected = content
        replies = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
        return {"prompt": turns(prompt), "chosen": replies[0], "rejected": replies[1], "kind": "given"}
    return {"text" if stage == "cpt" else "messages": content}


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Makes a recipe: recipe(folder, length=64, rows=10, seed=3)."""

    def make(folder: Path, **data: Any) -> Recipe:
        seed = data.pop("seed", 42)
        settings = {"path": folder, "length": 64, "prepared": tmp_path / "prepared", **data}
        return Recipe(
            stage=folder.name,
            model={"path": "models/base"},
            data=settings,
            trainer={"output_dir": "runs/test", "seed": seed},
        )

    return make
