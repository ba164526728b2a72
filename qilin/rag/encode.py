"""An encoder of texts: a sentence-transformers model, found, named by its content, and loaded only to encode."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qilin.errors import ModelError
from qilin.rag.tokens import missing

Vectors = NDArray[np.float32]

_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Encoder:
    """The folder of a model. digest: sha256 over its configuration, tokenizer and weights."""

    folder: Path
    digest: str

    def load(self, device: str | None = None) -> "Model":
        """The model, on a device ("cuda", "cpu"), or the best that is there. Never runs code that came with it."""
        return Model(self.folder, device)


def find_encoder(name: str) -> Encoder:
    """The encoder at a path, or the one of that name on the Hugging Face Hub, fetched unless it was before.

    Raises ModelError where there is none.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _fetched(name)
    files = sorted({path for pattern in _FILES for path in folder.rglob(pattern)})
    if not (folder / "modules.json").is_file() or not any(path.suffix == ".safetensors" for path in files):
        raise ModelError(
            f"{name} is no sentence-transformers model: its folder holds modules.json and weights as safetensors"
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            own = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)} {own}\n".encode())
    return Encoder(folder, digest.hexdigest())


def _fetched(name: str) -> Path:
    absent = f"{name} is neither a folder nor an encoder on the Hugging Face Hub"
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ModelError(f"{absent}; give the folder of a sentence-transformers model")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise missing("huggingface_hub") from error
    try:
        return Path(snapshot_download(name, allow_patterns=[*_FILES, *(f"*/{pattern}" for pattern in _FILES)]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{absent} within reach; fetch it where there is a network and give its folder") from error


class Model:
    """A loaded encoder. dimensions: of its vectors. dtype: what it computes in: bfloat16 where that is fast."""

    def __init__(self, folder: Path, device: str | None) -> None:
        try:
            import torch
            from sentence_transformers import SentenceTransformer
        except ModuleNotFoundError as error:
            raise missing("sentence-transformers") from error
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        fast = device.startswith("cuda") or _amx()
        self.dtype = "bfloat16" if fast else "float32"
        given = {"dtype": getattr(torch, self.dtype), "use_safetensors": True}
        try:
            self._model: Any = SentenceTransformer(
                str(folder), device=device, trust_remote_code=False, local_files_only=True, model_kwargs=given
            )
        except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{folder}: the encoder cannot be loaded: {why}") from error
        # Vectors of length 1 make the inner product a cosine; models that were trained with plain products keep theirs.
        self._unit = self._model.similarity_fn_name != "dot"
        self.dimensions = int(self._model.get_embedding_dimension())

    def documents(self, texts: Sequence[str]) -> Vectors:
        """The vectors of passages, a row each, with the prompt that the model has for documents."""
        return self._checked(self._model.encode_document, texts)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """The vectors of questions, a row each, with the prompt that the model has for queries."""
        return self._checked(self._model.encode_query, texts)

    def _checked(self, encode: Any, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        vectors: Vectors = np.array(encode(list(texts), batch_size=_BATCH, show_progress_bar=False), np.float32)
        if not np.isfinite(vectors).all():
            raise ModelError(f"the encoder gives numbers that are not finite in {self.dtype}: its weights are damaged")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if self._unit else np.ones(1, np.float32)
        vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors


def _amx() -> bool:
    """Whether this processor multiplies matrices of bfloat16 in hardware."""
    import torch

    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
