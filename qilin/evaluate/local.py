"""A model in a folder, as an `LM` of lm-eval: prompts are messages, and a prompt is read once for all its candidates.

What differs from lm-eval's own `HFLM`: the context that goes in is a list of messages as JSON, which the tokenizer's
chat template turns into ids (text in a message never becomes a control token); candidates are encoded as the reply that
they would be; logits are computed where they are looked at only, in float32; and the candidates of a prompt share its
keys and values. The likelihoods are the same, but for rounding.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from qilin.errors import ModelError
from qilin.evaluate.prompt import CUT, END_OF_PLAIN, plain

Ids = tuple[int, ...]
ROWS = 64  # candidates that are read at once after their prompt
PART = 128  # tokens whose logits are turned into floats at once: each is a whole vocabulary


class Encoding:
    """Conversations and replies as the ids of a tokenizer: through its chat template or, without one, as plain text.

    end: what ends a reply. Raises ModelError for a tokenizer with several chat templates.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not isinstance(tokenizer.chat_template, str | None):
            raise ModelError("the tokenizer has several chat templates; choose one with model.template")
        self.tokenizer = tokenizer
        self.template: str = tokenizer.chat_template or ""
        self.tail, self.end = self._edges()
        self._prompts: dict[str, Ids] = {}
        self._replies: dict[str, Ids] = {}

    def prompt(self, context: str) -> Ids:
        """The ids of messages (JSON), up to where the reply begins."""
        if context not in self._prompts:
            self._prompts[context] = tuple(self._encode(json.loads(context)))
        return self._prompts[context]

    def reply(self, text: str) -> Ids:
        """The ids of a reply as they follow a prompt: a blank that a tokenizer sets before a text is not among them."""
        if text not in self._replies:
            lead, whole, alone = (
                self.tokenizer.encode(part, add_special_tokens=False) for part in (self.tail, self.tail + text, text)
            )
            self._replies[text] = tuple(whole[len(lead) :] if whole[: len(lead)] == lead else alone)
        return self._replies[text]

    def forget(self) -> None:
        """Let go of the prompts that were read."""
        self._prompts.clear()

    def text(self, context: str) -> str:
        """Messages (JSON) as the text that the ids of `prompt` stand for, with what the tokenizer sets before it."""
        turns = json.loads(context)
        if self.template:
            return str(self._render(turns, tokenize=False))
        begins = self.tokenizer.bos_token_id is not None and self.prompt(context)[0] == self.tokenizer.bos_token_id
        return f"{self.tokenizer.bos_token if begins else ''}{plain(turns)}"

    def _encode(self, turns: list[dict[str, str]]) -> list[int]:
        if not self.template:
            ids: list[int] = self.tokenizer.encode(plain(turns), split_special_tokens=True)
            return ids[:-1] if ids[-1] == self.tokenizer.eos_token_id else ids
        encoded: list[int] = self._render(turns, return_dict=False, sanitize_control_tokens=True)
        return encoded

    def _render(self, turns: list[dict[str, str]], **how: bool) -> Any:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, **how)
        except TemplateError as error:
            raise ModelError(f"the chat template refuses a conversation: {error}") from error

    def _edges(self) -> tuple[str, str]:
        """What stands before a reply and what ends it."""
        asked = [{"role": "user", "content": "甲"}]
        if not self.template:
            return plain(asked), END_OF_PLAIN
        render = self.tokenizer.apply_chat_template
        tail = render(asked, add_generation_prompt=True, tokenize=False).rpartition("甲")[2]
        after = render([*asked, {"role": "assistant", "content": "乙"}], tokenize=False).rpartition("乙")[2].lstrip()
        specials = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        ends = [token for token in specials if after.startswith(token)]
        return tail, max(ends, key=len, default=self.tokenizer.eos_token)


class Reader(Encoding):
    """A causal model that is read through its tokenizer. room: how many tokens it has for a prompt and a reply."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        super().__init__(tokenizer)
        self.model, self.batch_size = model, batch_size
        self.room: int = model.config.get_text_config().max_position_embeddings
        self._head = Head(model.get_output_embeddings())

    def stops(self) -> list[int]:
        """The ids that end a reply: the model's own, the tokenizer's, and the end of turn."""
        own = self.model.generation_config.eos_token_id
        ends = self.tokenizer.encode(self.end, add_special_tokens=False) if self.template else []
        found = [*(own if isinstance(own, list) else [own]), self.tokenizer.eos_token_id, *ends[:1]]
        return sorted({stop for stop in found if stop is not None})

    def likelihoods(self, requests: Sequence[tuple[Ids, Ids]]) -> list[tuple[float, bool]]:
        """For each (prompt, reply): the log-likelihood of the reply, and whether the model would give it greedily.

        Prompts whose replies are single tokens are read in batches of like length; after the others stands a cache.
        """
        import torch

        places: dict[Ids, list[int]] = defaultdict(list)
        for place, (context, _) in enumerate(requests):
            places[context].append(place)
        found: dict[int, tuple[float, bool]] = {}
        with torch.inference_mode():
            for context, first, cache in self._read(sorted(places, key=lambda ids: (-len(ids), ids)), requests, places):
                replies = [requests[place][1] for place in places[context]]
                scored = self._score(first, cache, replies)
                found |= dict(zip(places[context], scored, strict=True))
        return [found[place] for place in range(len(requests))]

    def nats(self, ids: Sequence[int]) -> float:
        """How improbable the ids after the first are, each after those before it."""
        import torch

        with torch.inference_mode():
            logits = self.model(self._padded([tuple(ids)]), use_cache=False).logits[0]
            after = torch.tensor(ids[1:], device=logits.device)
            parts = zip(logits.split(PART), after.split(PART), strict=False)  # behind the last token nothing stands
            return sum(
                float(torch.nn.functional.cross_entropy(part[: len(own)].float(), own, reduction="sum"))
                for part, own in parts
            )

    def _read(
        self, contexts: list[Ids], requests: Sequence[tuple[Ids, Ids]], places: dict[Ids, list[int]]
    ) -> Iterator[tuple[Ids, Any, Any]]:
        """Each prompt with the log-probabilities of the token after it and, where more are asked for, its cache."""
        short = [ids for ids in contexts if all(len(requests[place][1]) == 1 for place in places[ids])]
        for begin in range(0, len(short), self.batch_size):
            batch = short[begin : begin + self.batch_size]
            with self._head.only([len(ids) - 1 for ids in batch]):
                logits = self.model(self._padded(batch), use_cache=False).logits
            for row, context in enumerate(batch):
                yield context, logits[row, 0].log_softmax(-1), None
        for context in sorted(set(contexts) - set(short), key=lambda ids: (-len(ids), ids)):
            with self._head.only([len(context) - 1]):
                out = self.model(self._padded([context]), use_cache=True)
            yield context, out.logits[0, 0].log_softmax(-1), out.past_key_values

    def _score(self, first: Any, cache: Any, replies: list[Ids]) -> list[tuple[float, bool]]:
        """The replies to one prompt; their tokens but the last are read after its cache."""
        best = int(first.argmax())
        found = [(float(first[reply[0]]), best == reply[0]) for reply in replies]
        longer = [place for place, reply in enumerate(replies) if len(reply) > 1]
        for begin in range(0, len(longer), ROWS):
            rows = longer[begin : begin + ROWS]
            after = deepcopy(cache)
            after.batch_repeat_interleave(len(rows))
            ids = self._padded([replies[place][:-1] for place in rows])
            with self._head.only(None):
                logits = self.model(ids, past_key_values=after, use_cache=True).logits.log_softmax(-1)
            for row, place in enumerate(rows):
                rest = replies[place][1:]
                own = logits[row, : len(rest)]
                total, greedy = found[place]
                total += sum(float(own[at, token]) for at, token in enumerate(rest))
                found[place] = total, greedy and own.argmax(-1).tolist() == list(rest)
        return found

    def _padded(self, rows: Sequence[Ids]) -> Any:
        """Rows of ids with padding behind, which nothing before it sees."""
        import torch

        width = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=self.model.device)


class Head:
    """The output layer of a model, for a while in float32 and of single tokens.

    Sixteen bits round logits to steps of a sixteenth and more: letters tie, and the first of them would win.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._floats: tuple[Any, Any] | None = None  # weight and bias

    @contextmanager
    def only(self, places: Sequence[int] | None) -> Iterator[None]:
        """Give the logits of one place a row, or of all, in float32."""

        def pick(_: Any, args: tuple[Any]) -> tuple[Any]:
            return args if places is None else (args[0][range(len(places)), places][:, None],)

        handles = self.layer.register_forward_pre_hook(pick), self.layer.register_forward_hook(self._again)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _again(self, layer: Any, args: tuple[Any], logits: Any) -> Any:
        import torch

        if logits.dtype == torch.float32:
            return logits
        if self._floats is None:
            self._floats = layer.weight.float(), None if layer.bias is None else layer.bias.float()
        return torch.nn.functional.linear(args[0].float(), *self._floats)


def as_lm(reader: Reader) -> Any:
    """The reader as an `LM` whose contexts are messages as JSON."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import GenerationConfig

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every model that is not loaded by itself
    # Greedy and nothing else: a model's own settings, such as a repetition penalty, would change what it says.
    stops = set(reader.stops())
    settings = GenerationConfig(eos_token_id=sorted(stops), pad_token_id=reader.tokenizer.pad_token_id)
    reader.model.generation_config = settings

    class Local(HFLM):  # type: ignore[misc]
        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            return list(reader.prompt(context)), list(reader.reply(continuation))

        def tok_encode(self, string: str, *_: Any, **__: Any) -> list[int]:
            return list(reader.prompt(string))

        def tok_batch_encode(self, strings: Sequence[str], *_: Any, **__: Any) -> tuple[Any, Any]:
            rows = [reader.prompt(string) for string in strings]
            width, pad = max(map(len, rows)), reader.tokenizer.pad_token_id
            ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            return ids, mask

        def tok_decode(self, tokens: Any, *rest: Any, **how: Any) -> str:
            """A reply without its control tokens, and with CUT behind it where none of them ended it."""
            text = str(super().tok_decode(tokens, *rest, **how))
            return text if isinstance(tokens, int) or stops & set(tokens) else text + CUT

        def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any) -> Any:
            return reader.likelihoods([(tuple(context), tuple(reply)) for _, context, reply in requests])

    return Local(pretrained=reader.model, tokenizer=reader.tokenizer, batch_size=reader.batch_size)
