"""Chat templates: the ones at hand, their digests, and conversations turned into token ids and loss masks.

A template is a Jinja file whose `{% generation %}` marks stand around a reply and the token that ends the model's turn:
what lies between them carries loss. Templates run in transformers' own sandbox.

Text never becomes a control token. A special token of the tokenizer that stands in the content of a message, say
`<|im_end|>` in a question about chat formats, is encoded as the characters it is written with, as
`tokenizer.apply_chat_template(..., sanitize_control_tokens=True)` does.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qilin.bytepairs import BytePairs, Ids
from qilin.errors import ModelError

_FOLDER = Path(__file__).with_name("templates")
BUILT_IN = tuple(sorted(path.stem for path in _FOLDER.glob("*.jinja")))

Span = tuple[int, int]
Conversation = list[dict[str, str]]

_MARKS = "\U000f0002", "\U000f0003"  # private-use characters around special tokens in contents; not transformers' own
_PIECES = re.compile("|".join(_MARKS))
_NONE = np.zeros(0, np.int32)
_PROBE = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "甲乙丙丁", strict=True)]


def read(name_or_path: str) -> str:
    """The text of a built-in template, or of a .jinja file. Raises ModelError for what is neither.

    >>> "generation" in read("chatml")
    True
    """
    if name_or_path in BUILT_IN:
        return (_FOLDER / f"{name_or_path}.jinja").read_text(encoding="utf-8")
    try:
        return Path(name_or_path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the chat template {name_or_path!r} is neither built in ({', '.join(BUILT_IN)}) nor a readable file"
        ) from error


def digest(template: str) -> str:
    """sha256 of a template's text: what a stage and the stages after it must share.

    >>> digest(read("chatml"))[:8] == digest(read("qwen2.5"))[:8]
    False
    """
    return hashlib.sha256(template.encode()).hexdigest()


def check(tokenizer: Any) -> None:
    """Raise ModelError unless the tokenizer's chat template marks each reply, from the end of the prompt to its end.

    A reply must begin exactly where the generation prompt ends, else a model is asked what it was not trained on, and
    the end-of-turn token must lie inside the marks, else it never learns to stop.
    """
    end_of_turn(tokenizer)


def end_of_turn(tokenizer: Any) -> int:
    """The id of the token that ends a reply in the tokenizer's chat template: where generation should stop.

    It need not be the tokenizer's EOS. Raises ModelError as `check` does.
    """
    return Encoder.of(tokenizer).end_of_turn()


def encode(tokenizer: Any, conversations: Sequence[Conversation]) -> tuple[list[Ids], list[NDArray[np.bool_]]]:
    """Token ids and loss masks of conversations by the tokenizer's chat template, in order.

    A mask is True on the tokens of each marked reply and its end of turn, and on no others. A conversation is a list of
    {"role", "content"}. Ids are those of `tokenizer.apply_chat_template`, except where a token would reach over the
    edge of a reply (a reply that begins with a line break after a template that ends in one): there the ids are split
    at the edge, as they are when the model answers. Raises ModelError for a tokenizer without offsets, without a
    template, or when the template refuses a conversation.
    """
    return Encoder.of(tokenizer).masked(conversations)


@dataclass(frozen=True)
class Encoder:
    """What encodes text and conversations, in any process: the tokenizer's backend, template and special tokens.

    backend: the tokenizer in its serial form. specials: the variables a template may use (`eos_token`, ...). stops: the
    special tokens by id. eos: the id that ends a document.
    """

    backend: str
    template: str
    specials: dict[str, Any]
    stops: dict[int, str]
    eos: int

    @classmethod
    def of(cls, tokenizer: Any) -> "Encoder":
        """The encoder of a transformers tokenizer; ModelError if it is slow, or has no EOS or several templates."""
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which cannot tell where its tokens stand in the text;"
                " use a model with a tokenizer.json"
            )
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no EOS token, so no document would end; set eos_token in its config")
        if not isinstance(tokenizer.chat_template, str | None):
            raise ModelError("the tokenizer has several chat templates; choose one with model.template")
        stops = {id_: token.content for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        stops[tokenizer.eos_token_id] = tokenizer.eos_token
        template = tokenizer.chat_template or ""
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # both are left over from the tokenizer's last call, which sets them anew each time
        backend.no_padding()
        return cls(backend.to_str(), template, dict(tokenizer.special_tokens_map), stops, tokenizer.eos_token_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return Encoder, (self.backend, self.template, self.specials, self.stops, self.eos)  # not what is made of them

    def end_of_turn(self) -> int:
        """`end_of_turn` of this encoder's template."""
        text, spans = self.render(_PROBE)
        ends = {token: id_ for id_, token in self.stops.items()}
        advice = f"take a built-in one (model.template: {', '.join(BUILT_IN)}) or mark the replies in your own"
        if len(spans) != 2:
            raise ModelError(f"the chat template marks {len(spans)} of 2 replies with {{% generation %}}; {advice}")
        found: set[int] = set()
        for reply, (begin, end) in zip((1, 3), spans, strict=True):
            if text[:begin] != self.prompt(_PROBE[:reply]):
                raise ModelError(
                    "in the chat template {% generation %} does not begin where the prompt ends that "
                    f"add_generation_prompt writes; {advice}"
                )
            content, tail = _PROBE[reply]["content"], text[begin:end]
            rest = tail.removeprefix(content).lstrip()
            token = max((token for token in ends if rest.startswith(token)), key=len, default="")
            if not tail.startswith(content) or not token:
                raise ModelError(
                    "in the chat template no special token of the tokenizer follows a reply before "
                    f"{{% endgeneration %}}, but {rest!r}: a model trained with it would never stop; {advice}"
                )
            found.add(ends[token])
        if len(found) != 1:
            raise ModelError(f"the chat template ends replies with different tokens; {advice}")
        return found.pop()

    @cached_property
    def digest(self) -> str:
        """sha256 of what the tokenizer does with plain text."""
        return hashlib.sha256(f"{self.eos} {self.backend}".encode()).hexdigest()

    @cached_property
    def _documents(self) -> Any:
        """Encodes whole documents: with what the tokenizer sets around them, and special tokens in them as text."""
        made = _load(self.backend)
        made.encode_special_tokens = True
        return made

    @cached_property
    def _chats(self) -> Any:
        """Encodes rendered conversations. Without post-processor: some of those cut blanks off the offsets."""
        made = _load(self.backend)
        made.post_processor = None
        return made

    @cached_property
    def _contents(self) -> Any:
        """Encodes parts of contents: special tokens as text."""
        made = _load(self.backend)
        made.post_processor, made.encode_special_tokens = None, True
        return made

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Any special token."""
        longest_first = sorted(self.stops.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    @cached_property
    def _pairs(self) -> BytePairs | None:
        """What encodes faster, for tokenizers that it can stand for."""
        return BytePairs.of(self.backend, self._chats)

    def _quickly(
        self, texts: list[str], edges: list[list[int]] | None = None, *, plain: bool = False
    ) -> list[tuple[Ids, list[int]] | None]:
        """Ids, and before which of them the edges stand, of the texts that need not be left to the library."""
        return self._pairs.encode(texts, edges, plain=plain) if self._pairs else [None] * len(texts)

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer sets before and after a document."""
        bare = self._documents.encode("a", add_special_tokens=False).ids
        whole = self._documents.encode("a").ids
        at = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
        after = whole[at + len(bare) :]
        return whole[:at], after if after[-1:] == [self.eos] else [*after, self.eos]

    def documents(self, texts: list[str]) -> list[Ids]:
        """The ids of documents, each with its EOS; nothing for an empty text."""
        found = self._quickly(texts, plain=True)
        rest = [row for row, own in enumerate(found) if own is None]
        if rest:
            library = self._documents.encode_batch_fast([texts[row] for row in rest], add_special_tokens=False)
            for row, encoding in zip(rest, library, strict=True):
                found[row] = np.array(encoding.ids, np.int32), []
        before, after = (np.array(part, np.int32) for part in self._around)
        return [
            np.concatenate([before, own[0], after]) if own and text else _NONE
            for own, text in zip(found, texts, strict=True)
        ]

    def masked(self, conversations: Sequence[Conversation]) -> tuple[list[Ids], list[NDArray[np.bool_]]]:
        """`encode` of this encoder."""
        ids, spans = self.conversations(conversations)
        masks = [np.zeros(len(own), np.bool_) for own in ids]
        for mask, own in zip(masks, spans, strict=True):
            for begin, end in own:
                mask[begin:end] = True
        return ids, masks

    def conversations(self, conversations: Sequence[Conversation]) -> tuple[list[Ids], list[list[Span]]]:
        """The ids of conversations, and for each its replies as ranges of tokens."""
        held = self._holds_special(conversations)
        texts, marked = self._render(conversations, held)
        edges = [[edge for span in own for edge in span] for own in marked]
        found = self._quickly(texts, edges)
        rest = [row for row, own in enumerate(found) if own is None and not held[row]]
        if rest:
            library = self._chats.encode_batch([texts[row] for row in rest], add_special_tokens=False)
            for row, encoding in zip(rest, library, strict=True):
                found[row] = _placed(encoding, edges[row], len(texts[row]))
        ids: list[Ids] = []
        spans: list[list[Span]] = []
        for text, characters, own, special in zip(texts, edges, found, held, strict=True):
            whole, places = self._piecewise(text, characters) if special or own is None else own
            ids.append(whole)
            spans.append(list(zip(places[::2], places[1::2], strict=True)))
        return ids, spans

    def render(self, conversation: Conversation) -> tuple[str, list[Span]]:
        """A conversation as text, and its replies as ranges of characters."""
        texts, spans = self._render([conversation], [False])
        return texts[0], spans[0]

    def prompt(self, conversation: Conversation) -> str:
        """A conversation as text, up to where the model goes on."""
        texts, _ = self._rendered([conversation], add_generation_prompt=True)
        return texts[0]

    def _render(self, conversations: Sequence[Conversation], held: list[bool]) -> tuple[list[str], list[list[Span]]]:
        chats = [self._mark(own) if special else own for own, special in zip(conversations, held, strict=True)]
        return self._rendered(chats, return_assistant_tokens_mask=True)

    def _rendered(self, chats: list[Conversation], **options: bool) -> tuple[list[str], list[list[Span]]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        if not re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", self.template):
            what = "has no {% generation %} marks around the replies" if self.template else "is missing"
            raise ModelError(f"the chat template {what}; take a built-in one (model.template: {', '.join(BUILT_IN)})")
        try:
            rendered: tuple[list[str], list[list[Span]]] = render_jinja_template(
                chats, chat_template=self.template, **self.specials, **options
            )
        except (TemplateError, TypeError) as error:
            raise ModelError(f"the chat template refuses a conversation: {error}") from error
        return rendered

    def _holds_special(self, conversations: Sequence[Conversation]) -> list[bool]:
        """Whether a special token stands in a content of each conversation."""
        contents = ["\0".join(message["content"] for message in own) for own in conversations]
        whole = "\0".join(contents)  # one search for each token: hardly any batch holds one
        if not any(token in whole for token in (*self.stops.values(), *_MARKS)):
            return [False] * len(contents)
        return [bool(self._special.search(text) or _PIECES.search(text)) for text in contents]

    def _mark(self, conversation: Conversation) -> Conversation:
        """The conversation with marks around the special tokens in its contents; marks that were there go."""
        begin, end = _MARKS

        def mark(text: str) -> str:
            return self._special.sub(f"{begin}\\g<0>{end}", _PIECES.sub("", text))

        return [message | {"content": mark(message["content"])} for message in conversation]

    def _piecewise(self, text: str, edges: list[int]) -> tuple[Ids, list[int]]:
        """Encode a rendered conversation cut at edges and at marks: its ids, and before which the edges stand."""
        cuts = sorted({0, len(text), *edges})
        ids: list[int] = []
        at = {0: 0}
        before = ""  # the control token that the text so far ends in, or a line break for any other text
        for begin, end in itertools.pairwise(cuts):
            for number, piece in enumerate(_PIECES.split(text[begin:end])):
                if not piece:
                    continue
                if number % 2:  # a special token as text, of which the tokenizer knows none before it
                    ids += _go_on(self._contents, piece, before if before == "\n" else "")
                    before = "\n"
                else:
                    ids += _go_on(self._chats, piece, before)
                    before = self.stops.get(ids[-1], "\n")
            at[end] = len(ids)
        return np.array(ids, np.int32), [at[edge] for edge in edges]


def _load(backend: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(backend)


def _placed(encoding: Any, edges: list[int], length: int) -> tuple[Ids, list[int]] | None:
    """The ids, and before which the edges stand; None where a token reaches over an edge or none begins there."""
    places = []
    for edge in edges:
        token = encoding.char_to_token(edge) if edge < length else len(encoding)
        if token is None or (edge < length and encoding.token_to_chars(token)[0] != edge):
            return None
        places.append(token)
    return np.array(encoding.ids, np.int32), places


def _go_on(tokenizer: Any, piece: str, before: str) -> list[int]:
    """The ids of a piece of a text: encoded after what stands before it, which is taken off again.

    Tokenizers in the manner of sentencepiece set a blank before a text; some of them do so after a control token, too.
    """
    lead: list[int] = tokenizer.encode(before, add_special_tokens=False).ids
    whole: list[int] = tokenizer.encode(before + piece, add_special_tokens=False).ids
    if whole[: len(lead)] == lead:
        return whole[len(lead) :]
    alone: list[int] = tokenizer.encode(piece, add_special_tokens=False).ids
    return alone
