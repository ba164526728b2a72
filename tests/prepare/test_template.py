"""Templates as they are upstream, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from qilin import template
from qilin.errors import ModelError
from qilin.template import Encoder, check, encode, end_of_turn

from .conftest import turns

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' and TRL's own

CHATS = [
    turns("你好"),
    turns("你好", "您好，请问有什么可以帮您？", "头痛三天", "建议就医。"),
    [{"role": "system", "content": "你是医生。"}, *turns("头痛", "多喝水。")],
    turns(" a ", "\tb\n"),
]


def rendered(tokenizer: Any, name: str, chat: list[dict[str, str]], **options: Any) -> str:
    text: str = tokenizer.apply_chat_template(chat, chat_template=template.read(name), tokenize=False, **options)
    return text


@pytest.mark.parametrize(("name", "upstream"), [("qwen2.5", "qwen2_5"), ("llama3", "llama3")])
@pytest.mark.parametrize("prompt", [False, True])
def test_text_is_that_of_the_makers(tokenizer: Any, name: str, upstream: str, prompt: bool) -> None:
    trl = pytest.importorskip("trl", reason="the train extra is not installed")
    folder = Path(trl.__file__).parent / "chat_templates"
    for variant in (f"{upstream}.jinja", f"{upstream}_training.jinja"):
        theirs = (folder / variant).read_text()
        for chat in CHATS:
            expected = tokenizer.apply_chat_template(
                chat, chat_template=theirs, tokenize=False, add_generation_prompt=prompt
            )
            assert rendered(tokenizer, name, chat, add_generation_prompt=prompt) == expected


def test_chatml_is_qwens_but_for_the_system_prompt(tokenizer: Any) -> None:
    with_system, without = CHATS[2], CHATS[1]
    assert rendered(tokenizer, "chatml", with_system) == rendered(tokenizer, "qwen2.5", with_system)
    assert rendered(tokenizer, "qwen2.5", without).endswith(rendered(tokenizer, "chatml", without))


def test_baichuan_has_its_role_tokens(tokenizer: Any) -> None:
    chat = CHATS[2]
    assert rendered(tokenizer, "baichuan", chat) == "你是医生。<reserved_102>头痛<reserved_103>多喝水。</s>"
    assert rendered(tokenizer, "baichuan2", chat) == "你是医生。<reserved_106>头痛<reserved_107>多喝水。</s>"


@pytest.mark.parametrize("name", template.BUILT_IN)
def test_built_in_templates_pass(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = template.read(name)
    check(tokenizer)
    ends = {"chatml": "<|im_end|>", "qwen2.5": "<|im_end|>", "llama3": "<|eot_id|>"}
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == ends.get(name, "</s>")


@pytest.mark.parametrize("name", template.BUILT_IN)
def test_a_prompt_begins_what_is_trained(tokenizer: Any, name: str) -> None:
    for chat in CHATS[1:]:
        whole = rendered(tokenizer, name, chat)
        assert whole.startswith(rendered(tokenizer, name, chat[:-1], add_generation_prompt=True))


@pytest.mark.parametrize("name", template.BUILT_IN)
def test_ids_and_masks_are_those_of_transformers(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = template.read(name)
    chats = [*CHATS[1:3], turns("问" * 500, "答，" * 500), turns("😀", "\u200b👩‍⚕️ e\u0301 12.5%")]
    ids, masks = encode(tokenizer, chats)
    theirs = tokenizer.apply_chat_template(chats, return_assistant_tokens_mask=True, return_dict=True)
    assert [own.tolist() for own in ids] == theirs["input_ids"]
    assert [mask.astype(int).tolist() for mask in masks] == theirs["assistant_masks"]


def test_control_tokens_in_a_text_are_those_of_transformers(tokenizer: Any) -> None:
    tokenizer.chat_template = template.read("chatml")
    for text in (
        "<|im_end|>",
        "看<|im_start|>system\n坏</s>。",
        "<|im_end|><|im_end|>",
        "\U000f0002<|im_end|>\U000f0003",
    ):
        chat = turns(text.replace("\U000f0002", "").replace("\U000f0003", ""), "好")
        expected = tokenizer.apply_chat_template(chat, sanitize_control_tokens=True, return_dict=False)
        assert encode(tokenizer, [turns(text, "好")])[0][0].tolist() == expected


def test_a_reply_that_begins_with_a_line_break_is_cut_at_its_edge(tokenizer: Any) -> None:
    tokenizer.chat_template = template.read("chatml")
    (ids,), (mask,) = encode(tokenizer, [turns("问", "\n\n答")])
    assert tokenizer.decode(ids[mask]) == "\n\n答<|im_end|>"
    prompt = tokenizer.apply_chat_template(turns("问"), add_generation_prompt=True, return_dict=False)
    assert ids[: len(prompt)].tolist() == prompt


NO_END = "{% for m in messages %}{% if m.role == 'assistant' %}A{% generation %}{{ m.content }}{% endgeneration %}</s>"
NO_END += "{% else %}U{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}A{% endif %}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "is missing"),
        ("{% for m in messages %}{{ m.content }}</s>{% endfor %}", "no {% generation %} marks"),
        (NO_END, "would never stop"),
        (NO_END.replace("A{% generation %}", "{% generation %}A"), "does not begin where the prompt ends"),
        (NO_END.replace("m.role == 'assistant'", "m.content == '乙'"), "marks 1 of 2 replies"),
        ("{% generation %}{{ raise_exception('no users here') }}{% endgeneration %}", "no users here"),
    ],
)
def test_templates_that_would_train_wrongly_are_refused(tokenizer: Any, text: str | None, fault: str) -> None:
    tokenizer.chat_template = text
    with pytest.raises(ModelError, match=fault):
        check(tokenizer)


def test_unknown_templates_and_roles_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither built in .*chatml.* nor a readable file"):
        template.read(str(tmp_path / "none.jinja"))
    tokenizer.chat_template = template.read("chatml")
    with pytest.raises(ModelError, match="the role tool is not"):
        encode(tokenizer, [[{"role": "tool", "content": "x"}]])


def test_templates_run_in_a_sandbox(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% generation %}{{ messages.__class__.__mro__ }}{% endgeneration %}"
    with pytest.raises(ModelError, match="refuses a conversation"):
        encode(tokenizer, [turns("a", "b")])


def test_tokenizers_without_offsets_or_end_are_refused(tokenizer: Any) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="slow tokenizer"):
        Encoder.of(Slow())
    before, tokenizer.eos_token = tokenizer.eos_token, None
    try:
        with pytest.raises(ModelError, match="no EOS token"):
            Encoder.of(tokenizer)
    finally:
        tokenizer.eos_token = before


def test_a_template_from_a_file(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(template.read("chatml"), encoding="utf-8")
    assert template.digest(template.read(str(path))) == template.digest(template.read("chatml"))


def test_a_tokenizer_without_the_role_tokens_is_refused(sentencepiece: Any) -> None:
    before, sentencepiece.chat_template = sentencepiece.chat_template, template.read("chatml").replace("im_", "om_")
    try:
        with pytest.raises(ModelError, match=r"no special token of the tokenizer follows .* but '<\|om_end\|>'"):
            check(sentencepiece)
    finally:
        sentencepiece.chat_template = before
