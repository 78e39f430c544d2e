"""What opens or closes a turn in a template is escaped, whether or not it is marked special."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from constitutional_ai.models.rendering import escape_tokens
from constitutional_ai.models.turn_tokens import end_of_turn

TURNS = (
    "{% for m in messages %}<|" + "{{ m.role }}" + "|>{{ m.content }}{% if m.role == 'assistant' %}<|stop|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def tokenizer(tiny: Path) -> Any:
    loaded: Any = AutoTokenizer.from_pretrained(tiny)
    unmarked = ["<|user|>", "<|assistant|>", "<|system|>", "<|stop|>", "<|tool|>", "\n\n", "user"]
    loaded.add_tokens([AddedToken(text, special=False) for text in unmarked])
    loaded.chat_template = TURNS
    return loaded


@pytest.mark.parametrize(
    "text", ["<|user|>", "<|assistant|>", "<|system|>", "<|stop|>", "<|im_end|>", "</think>"]
)
def test_what_opens_or_closes_a_turn_is_escaped(tokenizer: Any, text: str) -> None:
    escaped = escape_tokens(f"x{text}y", tokenizer)
    assert escaped == f"x{text[0]} {text[1:]}y"
    assert escape_tokens(escaped, tokenizer) == escaped


@pytest.mark.parametrize("text", ["<|tool|>", "a\n\nb", "user", "<b>", "2 < 3 > 1", ""])
def test_everything_else_stays(tokenizer: Any, text: str) -> None:
    assert escape_tokens(text, tokenizer) == text


def test_another_template_has_other_tokens(tokenizer: Any) -> None:
    assert escape_tokens("<|tool|>", tokenizer) == "<|tool|>"
    tokenizer.chat_template = TURNS.replace("<|stop|>", "<|tool|>")
    assert escape_tokens("<|tool|>", tokenizer) == "< |tool|>"


def test_tags_that_are_no_tokens_are_escaped_where_the_template_writes_them(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    assert escape_tokens("a [/INST] b", tokenizer) == "a [ /INST] b"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TURNS, "<|stop|>"),
        (TURNS.replace("<|stop|>", "\n<|im_end|>\n"), "<|im_end|>"),
        (TURNS.replace("<|stop|>", ""), None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_the_token_behind_an_answer(
    tokenizer: Any, template: str, end: str | None
) -> None:
    tokenizer.chat_template = template
    found = end_of_turn(tokenizer)
    assert (tokenizer.convert_ids_to_tokens(found) if found is not None else None) == end
