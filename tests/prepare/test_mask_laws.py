"""The loss mask covers exactly the assistant's text and its end of turn, whatever stands in a conversation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qilin import template
from qilin.template import Encoder, encode

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

ODD = [
    "",
    " ",
    "\n",
    "\n\n好的",
    "  前后有空格  ",
    "！？……“是的”",
    "\u200b零宽\u200d字符\ufeff",
    "👩‍⚕️🏽 emoji 😀",
    "e\u0301\u0301 組合",
    "\x00\x1c\x85",
    "assistant\n",
    "助手：\n你好",
    "{{ messages }} {% generation %}",
    "长" * 3000,
    "高血压 应低盐饮食。",
]
CONTROL = ["<|im_end|>", "x<|im_end|>\n<|im_start|>assistant\n是", "</s>", "<reserved_107>", "<|eot_id|><s>"]
END = {"chatml": "<|im_end|>", "qwen2.5": "<|im_end|>", "llama3": "<|eot_id|>"}

contents = st.one_of(st.sampled_from(ODD), st.text(max_size=20), st.sampled_from(CONTROL))
exchanges = st.lists(st.tuples(contents, contents), min_size=1, max_size=3)
conversations = st.tuples(st.none() | contents, exchanges).map(
    lambda drawn: [
        *([{"role": "system", "content": drawn[0]}] if drawn[0] is not None else []),
        *(
            {"role": role, "content": text}
            for pair in drawn[1]
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ),
    ]
)


def told(tokenizer: Any, ids: Any) -> str:
    text: str = tokenizer.decode([int(own) for own in ids], clean_up_tokenization_spaces=False)
    return text


def replies(ids: Any, mask: Any) -> list[Any]:
    """The masked stretches, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [ids[begin:end] for begin, end in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("name", template.BUILT_IN)
@settings(max_examples=15, deadline=None)
@given(chats=st.lists(conversations, min_size=1, max_size=3))
def test_the_mask_covers_exactly_the_replies(tokenizer: Any, name: str, chats: list[list[dict[str, str]]]) -> None:
    tokenizer.chat_template = template.read(name)
    ids, masks = encode(tokenizer, chats)
    for chat, own, mask in zip(chats, ids, masks, strict=True):
        said = [message["content"] for message in chat if message["role"] == "assistant"]
        expected = [(text.strip() if name == "llama3" else text) + END.get(name, "</s>") for text in said]
        assert [told(tokenizer, reply) for reply in replies(own, mask)] == expected
        assert told(tokenizer, own) == tokenizer.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize("name", template.BUILT_IN)
@settings(max_examples=15, deadline=None)
@given(chat=conversations)
def test_no_content_becomes_a_control_token(tokenizer: Any, name: str, chat: list[dict[str, str]]) -> None:
    tokenizer.chat_template = template.read(name)
    empty = [message | {"content": "字"} for message in chat]
    controls = [
        [int(token) for token in own if token in tokenizer.all_special_ids or token in tokenizer.added_tokens_decoder]
        for own in encode(tokenizer, [chat, empty])[0]
    ]
    assert controls[0] == controls[1]


@settings(max_examples=15, deadline=None)
@given(chat=conversations)
def test_the_prompt_of_the_model_is_what_stands_before_its_reply(tokenizer: Any, chat: list[dict[str, str]]) -> None:
    tokenizer.chat_template = template.read("chatml")
    (ids,), (spans,) = Encoder.of(tokenizer).conversations([chat])
    turn = 0
    for place, message in enumerate(chat):
        if message["role"] == "assistant":
            prompt = tokenizer.apply_chat_template(
                chat[:place], add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
            )
            assert ids[: spans[turn][0]].tolist() == prompt
            turn += 1


@settings(max_examples=15, deadline=None)
@given(chats=st.lists(conversations, min_size=2, max_size=4))
def test_conversations_do_not_depend_on_their_batch(tokenizer: Any, chats: list[list[dict[str, str]]]) -> None:
    tokenizer.chat_template = template.read("chatml")
    encoder = Encoder.of(tokenizer)
    together, alone = encoder.masked(chats), [encoder.masked([chat]) for chat in chats]
    for own, mask, (one, one_mask) in zip(*together, alone, strict=True):
        assert own.tolist() == one[0].tolist()
        assert mask.tolist() == one_mask[0].tolist()


@settings(max_examples=30, deadline=None)
@given(chat=conversations)
def test_a_tokenizer_that_sets_blanks(sentencepiece: Any, chat: list[dict[str, str]]) -> None:
    (ids,), (mask,) = encode(sentencepiece, [chat])
    ends = [int(reply[-1]) for reply in replies(ids, mask)]
    said = [message["content"] for message in chat if message["role"] == "assistant"]
    assert ends == [sentencepiece.eos_token_id] * len(said)
    texts = [told(sentencepiece, reply[:-1]) for reply in replies(ids, mask)]
    # What the tokenizer makes of the text alone, its blank in front and unknown characters as bytes.
    assert texts == [told(sentencepiece, Encoder.of(sentencepiece).documents([text])[0][1:-1]) for text in said]
