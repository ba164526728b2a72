"""Baichuan 1 and 2 7B as a Llama: the same numbers in an architecture that transformers knows, no code of theirs.

Baichuan's 7B models are Llamas whose query, key and value projections are one matrix (`W_pack`); Baichuan 2 divides
each row of its output head by its length (`NormHead`). Read in their `modeling_baichuan.py`. The 13B models have ALiBi
in place of rotary positions, which Llama has not. Their tokenizer is a sentencepiece BPE model: it is written as a fast
tokenizer, and both must cut the probe texts alike.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from qilin import template
from qilin.errors import ModelError, RunError
from qilin.models import LINEAGE

_PROBES = (
    "高血压患者平时要注意什么？",
    "  两个空格，\t制表符\n换行 ",
    "Hb 120 g/L，WBC 6.5×10⁹/L；50%",
    "𠮷野家😀 ﷽ \u200b",
    "",
)
_RESERVED = re.compile(r"<[^<>\s]+>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_META = "\u2581"  # what sentencepiece writes for a blank
_CONTROL, _USER, _BYTES, _UNKNOWN = 3, 4, 6, 2  # types of pieces in sentencepiece_model.proto


def import_model(folder: Path, out: Path) -> None:
    """Write the Baichuan 7B model of `folder` to `out` in the Llama architecture, a shard of weights at a time.

    Weights are read from safetensors, or from .bin files by torch's loader for tensors only, which runs no code.
    Raises ModelError: not a Baichuan 7B model, files missing, or a tokenizer that cannot be told in the fast form.
    RunError: `out` is taken, or the disk is full.
    """
    found = _config(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already; give --out a new folder")
    second = "z_loss_weight" in found or found.get("vocab_size", 0) > 100_000
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        _write_tokenizer(folder, draft, "baichuan2" if second else "baichuan", found)
        _write_weights(folder, draft, second)
        _llama(found).save_pretrained(draft)
        origin = {"stage": "base", "path": str(folder), "imported": found.get("architectures", ["Baichuan"])[0]}
        (draft / LINEAGE).write_text(json.dumps(origin, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        if out.exists():
            out.rmdir()
        draft.replace(out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error}; make room and run again") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}; give the folder of a Baichuan model") from error
    if found.get("model_type") != "baichuan":
        raise ModelError(f"{path}: found model_type {found.get('model_type')!r}; this is for baichuan alone")
    if found["num_hidden_layers"] == 40 or found.get("hidden_size") == 5120:
        raise ModelError(f"{path}: a 13B model: Llama has no place for its ALiBi positions; import one of 7B")
    return found


def _llama(found: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    length = found.get("max_position_embeddings") or found.get("model_max_length") or 4096
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
    same = {name: found[name] for name in (*names, "rms_norm_eps")}
    marks = {f"{name}_token_id": found.get(f"{name}_token_id") for name in ("bos", "eos", "pad")}
    dtype = found.get("torch_dtype") or found.get("dtype") or "bfloat16"
    return LlamaConfig(
        **same,
        **marks,
        max_position_embeddings=length,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype=dtype,
    )


def _shards(folder: Path) -> Iterator[dict[str, Any]]:
    """The tensors of each file of weights, file after file."""
    import torch
    from safetensors.torch import load_file

    safe, pickled = sorted(folder.glob("*.safetensors")), sorted(folder.glob("pytorch_model*.bin"))
    if not safe and not pickled:
        raise ModelError(f"{folder}: no weights; it needs *.safetensors or pytorch_model*.bin")
    for path in safe or pickled:
        try:
            yield load_file(path) if safe else torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # each loader has errors of its own
            raise ModelError(f"{path}: cannot be read as weights: {str(error).splitlines()[0]}") from error


def _write_weights(folder: Path, out: Path, normed: bool) -> None:
    from safetensors.torch import save_file

    index: dict[str, str] = {}
    size = 0
    for number, tensors in enumerate(_shards(folder), 1):
        name = f"model-{number:05d}.safetensors"
        renamed = dict(_renamed(tensors, normed))
        index |= dict.fromkeys(renamed, name)
        size += sum(tensor.nbytes for tensor in renamed.values())
        save_file(renamed, out / name, metadata={"format": "pt"})
    told = {"metadata": {"total_size": size}, "weight_map": index}
    (out / "model.safetensors.index.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def _renamed(tensors: dict[str, Any], normed: bool) -> Iterator[tuple[str, Any]]:
    from torch.nn.functional import normalize

    for name, tensor in tensors.items():
        if name.endswith("rotary_emb.inv_freq"):
            continue
        if name.endswith("W_pack.weight"):
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                yield name.replace("W_pack", f"{part}_proj"), piece.contiguous().clone()
        elif name == "lm_head.weight" and normed:
            yield name, normalize(tensor.float()).to(tensor.dtype)
        else:
            yield name, tensor.contiguous().clone()


def _write_tokenizer(folder: Path, out: Path, name: str, found: dict[str, Any]) -> None:
    from transformers import PreTrainedTokenizerFast

    try:
        import sentencepiece
    except ImportError:
        raise ModelError("qilin import needs sentencepiece and protobuf: pip install sentencepiece protobuf") from None
    path = folder / "tokenizer.model"
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(path.read_bytes())
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: is no sentencepiece model: {error}") from error
    backend = _backend(path)
    for probe in _PROBES:
        ours, theirs = backend.encode(probe, add_special_tokens=False).ids, processor.EncodeAsIds(probe)
        if ours != theirs:
            raise ModelError(f"{path}: the fast tokenizer cuts {probe!r} into {ours}, sentencepiece into {theirs}")
    ids = {mark: found.get(f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
    marks = {f"{mark}_token": processor.IdToPiece(number) for mark, number in ids.items() if number is not None}
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=processor.IdToPiece(processor.unk_id()), **marks)
    fast.chat_template = template.read(name)
    fast.save_pretrained(out)


def _backend(path: Path) -> Any:
    """A BPE tokenizer of the `tokenizers` library that does what a sentencepiece BPE model says."""
    from sentencepiece import sentencepiece_model_pb2 as proto
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

    model = cast(Any, proto).ModelProto.FromString(path.read_bytes())
    if model.trainer_spec.model_type != 2:
        raise ModelError(f"{path}: no BPE model; Baichuan's tokenizers are BPE")
    spec, pieces = model.normalizer_spec, model.pieces
    if spec.precompiled_charsmap:
        raise ModelError(f"{path}: it rewrites characters before it cuts; Baichuan's tokenizers do not")
    vocabulary = {piece.piece: number for number, piece in enumerate(pieces)}
    unknown = next(piece.piece for piece in pieces if piece.type == _UNKNOWN)
    backend = Tokenizer(
        models.BPE(vocabulary, _merges(pieces, vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    steps: list[Any] = []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_META))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _META)])
    shown = [decoders.Replace(_META, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*shown, *([decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else [])])
    fixed = [p.piece for p in pieces if p.type in {_CONTROL, _USER} or (_RESERVED.fullmatch(p.piece) and p.type == 1)]
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in fixed])
    return backend


def _merges(pieces: Any, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """All ways to put a piece together from two others, the likeliest piece first."""
    found = []
    for piece in pieces:
        text = piece.piece
        if piece.type == 1 and not _BYTE.fullmatch(text):
            for cut in range(1, len(text)):
                left, right = text[:cut], text[cut:]
                if left in vocabulary and right in vocabulary:
                    found.append((-piece.score, vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]
