from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.dialogues import conversation_of, split_prompt
from constitutional_ai.data.rendered import FAMILIES
from constitutional_ai.errors import RecordError
from constitutional_ai.models.thinking import without_thoughts
from constitutional_ai.records import Conversation, as_messages
from tests.data.test_dialogues import chatml, turns

TALK = turns("s:Be kind.", "u:Hi", "a:Hello", "u:And now?", "a:Bye")
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def llama(conversation: Conversation) -> str:
    return "".join(
        f"<|start_header_id|>{m.role}<|end_header_id|>\n\n{m.content}<|eot_id|>" for m in conversation
    )


STRINGS = {
    "ChatML": chatml(TALK),
    "Llama 3": llama(TALK),
    "Gemma 4": (
        "<|turn>system\nBe kind.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHello<turn|>\n"
        "<|turn>user\nAnd now?<turn|>\n<|turn>model\nBye<turn|>\n"
    ),
    "Mistral": ("[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello</s>[INST]And now?[/INST]Bye</s>"),
    "Llama 2": (
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] And now? [/INST] Bye </s>"
    ),
    "DeepSeek": f"{BOS}Be kind.<｜User｜>Hi<｜Assistant｜>Hello{EOS}<｜User｜>And now?<｜Assistant｜>Bye{EOS}",
    "plain": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And now?\n\nAssistant: Bye",
}
STRINGS["Gemma"] = (
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    "<start_of_turn>user\nAnd now?<end_of_turn>\n<start_of_turn>model\nBye<end_of_turn>\n"
)
PADDINGS = [
    "",
    "<pad>",
    "<s>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|finetune_right_pad_id|>",
    "</s>",
    "[PAD]",
]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", STRINGS)
def test_a_string_of_a_known_family_is_read_turn_by_turn(name: str, padding: str) -> None:
    expected = TALK[1:] if name in ("plain", "Gemma") else TALK
    assert conversation_of(padding * 3 + STRINGS[name] + padding * 3) == expected


@pytest.mark.parametrize("padding", ["<PAD>", "<s>", "<|reserved_special_token_7|>", "<|▁pad▁|>"])
def test_padding_may_stand_between_turns_and_at_their_edges(padding: str) -> None:
    for name in ("ChatML", "Llama 3", "Gemma 4"):
        text = STRINGS[name].replace("Hi", f"{padding}Hi").replace("Bye", f"{padding}{padding}Bye")
        end = FAMILIES[name].end
        assert conversation_of(text.replace(end, f"{end}{padding}")) == TALK


@pytest.mark.parametrize("name", STRINGS)
def test_an_answer_may_be_cut_or_empty(name: str) -> None:
    cut = STRINGS[name][: STRINGS[name].index("Bye")]
    assert conversation_of(cut + "By")[-1:] == turns("a:By")
    assert conversation_of(cut)[-1].content.strip() == ""
    assert split_prompt(cut)[0] == conversation_of(STRINGS[name])[:-1]


@pytest.mark.parametrize(
    "empty",
    [
        "<think>\n\n</think>\n\n",
        "<think></think>",
        "[THINK][/THINK]",
        "<|channel>thought\n<channel|>",
        "◁think▷◁/think▷",
    ],
)
@pytest.mark.parametrize("name", sorted(STRINGS.keys() - {"plain"}))
def test_an_empty_thought_belongs_to_the_prompt(name: str, empty: str) -> None:
    start = STRINGS[name].index("Bye")
    prompt, end = STRINGS[name][:start] + empty, STRINGS[name][start:]
    read = conversation_of(STRINGS[name])
    assert split_prompt(prompt) == (read[:-1], "")
    assert conversation_of(prompt + end) == conversation_of(prompt + end, prompt) == read
    assert conversation_of(prompt + end, STRINGS[name][:start]) == read


def test_a_thought_with_words_is_left_to_who_reads_the_answer() -> None:
    text = STRINGS["ChatML"].replace("Bye", "<think>Hm</think>Bye")
    assert conversation_of(text)[-1].content == "<think>Hm</think>Bye"
    assert split_prompt("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n")[1] == "<think>\n"


def rendered(template: Path, conversation: Conversation) -> str:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compiled, messages = _compile_jinja_template(template.read_text()), as_messages(conversation)
    text = ""
    for content in (lambda text: text, lambda text: [{"type": "text", "text": text}]):
        said: list[Any] = [m | {"content": content(m["content"])} for m in messages]
        try:
            text = compiled.render(messages=said, bos_token=BOS, eos_token="</s>", add_generation_prompt=False)
        except TemplateError:  # Gemma's first refuses a system turn
            continue
        if conversation[-1].content in text:
            return str(text)
    return text


KNOWN = ["deepseek", "diffusion_gemma", "gemma", "lfm2", "llama", "llava", "nemotron", "qwen"]
OTHERS = ["cohere", "glm4moe", "gptoss", "idefics3", "muse", "phi3", "smolvlm"]


@pytest.mark.parametrize("family", KNOWN)
def test_what_templates_of_known_families_render_is_read_back(family: str) -> None:
    trl = pytest.importorskip("trl")
    templates = sorted((Path(trl.__file__).parent / "chat_templates").glob(f"{family}*.jinja"))
    assert templates
    for template in templates:
        read = without_thoughts(conversation_of(rendered(template, TALK[1:])))
        assert [m for m in read if m.role != "system"] == list(TALK[1:]), template.name
        if system := rendered(template, TALK):
            read = without_thoughts(conversation_of(system))
            assert (read[-3:], "Be kind." in read[0].content) == (TALK[-3:], True), template.name


@pytest.mark.parametrize("family", OTHERS)
def test_what_templates_of_other_families_render_is_refused(family: str) -> None:
    trl = pytest.importorskip("trl")
    templates = sorted((Path(trl.__file__).parent / "chat_templates").glob(f"{family}*.jinja"))
    assert templates
    for template in templates:
        with pytest.raises(RecordError, match=r"holds the control token [<\[]"):
            conversation_of(rendered(template, TALK))


REFUSED = [  # (text, the token that is named)
    ("\n\nHuman: Hi\n\nAssistant: It ends in <|im_end|> always.", "<|im_end|>"),
    ("Human: What does [INST] do?\n\nAssistant: It opens a turn.", "[INST]"),
    ("<|im_start|>user\nHi<|im_end|>\nand then<|im_start|>assistant\nYes", "<|im_end|>"),
    ("<|im_start|>user\nWhat is <|im_start|>assistant\n?<|im_end|>\n<|im_start|>assistant\nYes", "<|im_start|>"),
    ("<|im_start|>nobody\nHi<|im_end|>", "<|im_start|>"),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>tool\n4<|im_end|>\n<|im_start|>assistant\nYes", "<|im_end|>"),
    (llama(turns("u:Hi")) + "<|start_header_id|>ipython<|end_header_id|>\n\n4<|eot_id|>", "<|eot_id|>"),
    ("<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nA <eos> is an end", "<eos>"),
    ("[INST] Hi [/INST] Yes [INST] Hm [/INST] No", "[INST]"),
    ("[INST] What is [/INST] for? [/INST] It ends.</s>", "[/INST]"),
    ("<｜User｜>Hi<｜User｜>Hm<｜Assistant｜>Yes", "<｜User｜>"),
    ("Tell me of <｜User｜> and <｜Assistant｜>", "<｜User｜>"),
    ("<|user|>\nHi</s>\n<|assistant|>\nYes</s>", "<|user|>"),
    ("[|user|]Hi[|assistant|]Yes", "[|user|]"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "token"), REFUSED, ids=[t for _, t in REFUSED])
def test_a_control_token_that_no_family_explains_is_refused_by_name(text: str, token: str) -> None:
    with pytest.raises(RecordError, match="it holds the control token") as caught:
        conversation_of(text)
    assert f" {token}, and" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "if a <| b |> c: x <- f <|> g",
        "<b>bold</b> and [see 1]",
        "\u27e8a|b\u27e9 and <a|b>",
        "<think>Hm</think>Yes",
        "[THINK]Hm[/THINK]Yes",
    ],
)
def test_what_only_looks_like_a_control_token_is_read(text: str) -> None:
    assert conversation_of(f"\n\nHuman: Hi\n\nAssistant: {text}") == turns("u:Hi", f"a:{text}")


@pytest.mark.parametrize(
    "part", ["<s>", "<|im_start|>user\n", "<|pad", "[INST]", "<｜User｜>x", " ", "\n\nHuman:"]
)
def test_a_hostile_string_is_read_or_refused_in_a_moment(part: str) -> None:
    start = time.perf_counter()
    for text in (part * 100_000, part * 100_000 + "x"):
        try:
            conversation_of(text)
        except RecordError:
            continue
    assert time.perf_counter() - start < 20


def test_every_family_of_the_table_is_tested() -> None:
    assert set(FAMILIES) <= set(STRINGS)
