"""Who answers: a model in a folder, a server, or a baseline, each behind the `LM` interface of lm-eval.

The context of every request is the conversation as JSON. A baseline answers without reading it: it looks at the item,
which travels with each request. What no answer came for is a failure with a reason, never a wrong answer in silence.
"""

import hashlib
import json
import math
import os
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qilin import models, run, template
from qilin.errors import ModelError
from qilin.evaluate.exam import Item
from qilin.evaluate.prompt import CUT, STOP_OF_PLAIN
from qilin.evaluate.recipe import Baseline, Method, Recipe, Server

TOO_LONG, NO_ANSWER, NO_NUMBER = "too long", "no answer", "not a number"


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the model. prompt: the conversation as JSON. candidates: what it chooses among, if it does."""

    item: Item
    arm: str
    number: int
    method: Method
    prompt: str
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answerer:
    """Something that answers.

    identity: what it is, for the result; equal identities, equal answers. end: what ends its replies.
    """

    lm: Any
    identity: Mapping[str, Any]
    end: str
    max_new_tokens: int
    reader: Any = field(default=None, repr=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()

    def key(self, ask: Ask) -> str:
        """What an answer is stored under: sha256 of all that it hangs on."""
        limit = self.max_new_tokens if ask.method == "generation" else 0
        parts = [self.digest, ask.method, ask.item.id, ask.prompt, ask.candidates, self.end, limit]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()

    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Any]]:
        """The answers to questions of one method: {"scores": by candidate}, {"reply": text} or {"failure": why}.

        A reply that was not at its end when it had all the tokens it may have also holds "cut": true.
        """
        fitting = [place for place, ask in enumerate(asks) if self._fits(ask)]
        found: list[dict[str, Any]] = [{"failure": TOO_LONG} for _ in asks]
        own = [asks[place] for place in fitting]
        answers = self._generate(own) if own and own[0].method == "generation" else self._choose(own)
        for place, answer in zip(fitting, answers, strict=True):
            found[place] = answer
        if self.reader is not None:
            self.reader.forget()
        return found

    def _fits(self, ask: Ask) -> bool:
        """Whether a prompt and the longest answer to it fit the model: nothing is cut off a prompt."""
        if self.reader is None:
            return True
        replies = (len(self.reader.reply(self._said(ask, candidate))) for candidate in ask.candidates)
        need = max(replies, default=self.max_new_tokens)
        return len(self.reader.prompt(ask.prompt)) + need <= int(self.reader.room)

    def _said(self, ask: Ask, candidate: str) -> str:
        return candidate + self.end if ask.method == "sets" else candidate

    def _choose(self, asks: Sequence[Ask]) -> list[dict[str, Any]]:
        requests = [
            _instance("loglikelihood", ask, self._said(ask, candidate)) for ask in asks for candidate in ask.candidates
        ]
        scores = iter(self.lm.loglikelihood(requests, disable_tqdm=True) if requests else ())
        found = [{candidate: float(next(scores)[0]) for candidate in ask.candidates} for ask in asks]
        # Weights that overflow in 16 bits give no likelihoods; the likeliest of those would always be A.
        return [{"scores": own} if all(map(math.isfinite, own.values())) else {"failure": NO_NUMBER} for own in found]

    def _generate(self, asks: Sequence[Ask]) -> list[dict[str, Any]]:
        plain = self.reader is not None and not self.reader.template
        settings = {"max_gen_toks": self.max_new_tokens, "do_sample": False, "until": [STOP_OF_PLAIN] if plain else []}
        requests = [_instance("generate_until", ask, settings) for ask in asks]
        replies = self.lm.generate_until(requests, disable_tqdm=True) if requests else []
        return [_replied(reply) for reply in replies]


def open_answerer(recipe: Recipe) -> Answerer:
    """The recipe's model, server or baseline. Raises ModelError: a model that cannot be loaded, or another template."""
    if recipe.baseline:
        baseline = Baselines(recipe.baseline, recipe.seed)
        return Answerer(baseline, {"baseline": recipe.baseline, "seed": recipe.seed}, "", recipe.max_new_tokens)
    if recipe.server:
        identity = {"server": recipe.server.url, "name": recipe.server.name}
        return Answerer(Chat(recipe.server, recipe.batch_size), identity, "", recipe.max_new_tokens)
    return _local(recipe)


def _local(recipe: Recipe) -> Answerer:
    from qilin.evaluate.local import Reader, as_lm

    assert recipe.model is not None
    tokenizer = models.load_tokenizer(recipe.model, "cpt")  # an exam needs no generation marks in a template
    used = template.digest(tokenizer.chat_template) if isinstance(tokenizer.chat_template, str) else None
    folder = Path(recipe.model.path)
    before = models.lineage(folder) or {}
    if before.get("stage") in models.TUNED and before.get("template") != used:
        raise ModelError(
            f"{folder}: was tuned with the chat template {str(before.get('template'))[:16]}, this recipe uses "
            f"{str(used)[:16]}; leave `model.template` out to ask as it was taught"
        )
    model = models.load_model(recipe.model).eval()
    if not recipe.model.quantization:
        model = model.to(_device())
    reader = Reader(model, tokenizer, recipe.batch_size)
    weights = run.weights_digest(folder) if folder.is_dir() else f"commit {model.config._commit_hash}"
    identity = {
        "path": recipe.model.path,
        "weights": weights,
        "parameters": model.num_parameters(),
        "dtype": recipe.model.dtype,
        "quantization": recipe.model.quantization,
        "attention": model.config._attn_implementation,
        "device": model.device.type,
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "template": used,
        "end": reader.end,
        "stops": reader.stops(),
        "batch_size": recipe.batch_size,  # rounding hangs on it
        "head": "float32",
        "versions": {name: version(name) for name in ("torch", "transformers", "lm_eval")},
    }
    return Answerer(as_lm(reader), identity, reader.end, recipe.max_new_tokens, reader)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _replied(said: str | None) -> dict[str, Any]:
    if said is None:
        return {"failure": NO_ANSWER}
    reply = said.removesuffix(CUT)
    return {"reply": reply} if reply == said else {"reply": reply, "cut": True}


def _instance(kind: str, ask: Ask, second: Any) -> Any:
    from lm_eval.api.instance import Instance

    doc = {"id": ask.item.id, "answer": ask.item.answer, "letters": ask.item.letters}
    return Instance(kind, doc, (ask.prompt, second), 0)


@dataclass(frozen=True)
class Baselines:
    """An `LM` that does not read: it shows what a score is worth.

    random: any of the candidates, or any set of letters as a reply, drawn by the seed and the item's id. constant: A.
    oracle: the key.
    """

    name: Baseline
    seed: int

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """0 for what it would say and less for everything else."""
        return [(score, score == 0) for score in (self._score(request.doc, request.args[1]) for request in requests)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What it would say."""
        return [self._say(request.doc) for request in requests]

    def _score(self, doc: Mapping[str, str], candidate: str) -> float:
        if self.name == "random":
            return -self._drawn(doc, candidate)
        return 0.0 if candidate == self._say(doc) else -1.0

    def _say(self, doc: Mapping[str, str]) -> str:
        if self.name == "oracle":
            return doc["answer"]
        letters = doc["letters"] or "A"
        number = 1 + int(self._drawn(doc, "") * (2 ** len(letters) - 1)) if self.name == "random" else 1
        return "".join(letter for place, letter in enumerate(letters) if number >> place & 1)

    def _drawn(self, doc: Mapping[str, str], what: str) -> float:
        """A number from 0 to below 1."""
        text = hashlib.sha256(f"{self.seed} {doc['id']} {what}".encode()).digest()
        return int.from_bytes(text[:6], "big") / 2**48


@dataclass(frozen=True)
class Chat:
    """An `LM` over a server of chat completions: greedy replies, several at once, tried again, None where none came."""

    server: Server
    workers: int

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str | None]:
        """The replies, in order."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._reply, (request.args for request in requests)))

    def _reply(self, asked: tuple[str, Mapping[str, Any]]) -> str | None:
        prompt, settings = asked
        body = {
            "model": self.server.name,
            "messages": json.loads(prompt),
            "max_tokens": settings["max_gen_toks"],
            "temperature": 0,
        }
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.server.url, json.dumps(body).encode(), headers)
        for attempt in range(1 + self.server.retries):
            if attempt:
                time.sleep(min(0.5 * 2**attempt, 30))
            try:
                with urllib.request.urlopen(request, timeout=self.server.timeout) as response:
                    choice = json.load(response)["choices"][0]
                reply = choice["message"]["content"]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # no server, no answer in time, or nothing that is one
            if isinstance(reply, str):
                return f"{reply}{CUT}" if choice.get("finish_reason") == "length" else reply
        return None
