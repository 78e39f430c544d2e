"""Tokenizers for training, and the rows that fit.

A pretrained model has no chat template (SL-15), and TRL asks for one: it gets the paper's plain format.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer

from cai.models.hugging_face import cannot_load, defused

PLAIN_TEMPLATE = (
    r"{% for message in messages %}"
    r"{{ '\n\n' + {'user': 'Human', 'assistant': 'Assistant', 'system': 'System'}[message['role']] + ': ' }}"
    r"{{ message['content'] }}"
    # The line break keeps a text from ending in a token that may also be the padding (stack trap: pad == eos).
    r"{% if message['role'] == 'assistant' %}{{ eos_token + '\n' }}{% endif %}"
    r"{% endfor %}"
    r"{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
TEXTS = ("prompt", "completion", "chosen", "rejected")


def load_tokenizer(path: str | Path, *, padding_side: str = "right") -> Any:
    """A tokenizer with a chat template and a padding token. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side=padding_side)
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def within(
    rows: Iterable[dict[str, Any]], path: str | Path, max_length: int
) -> tuple[list[dict[str, Any]], int]:
    """The rows whose every text fits into ``max_length`` tokens, and how many do not. No text is ever cut.

    Control tokens written out in a text are broken up, so that no text opens a turn in training either.
    """
    tokenizer, kept, left_out = load_tokenizer(path), [], 0
    for row in rows:
        safe = row | {key: _defused(row[key], tokenizer) for key in TEXTS if key in row}
        if (
            max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in _texts(safe, tokenizer))
            > max_length
        ):
            left_out += 1
        else:
            kept.append(safe)
    return kept, left_out


def _defused(messages: list[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    return [m | {"content": defused(m["content"], tokenizer)} for m in messages]


def _texts(row: dict[str, Any], tokenizer: Any) -> list[str]:
    ends = [row[key] for key in TEXTS[1:] if key in row]
    if not ends:
        return [tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)]
    return [tokenizer.apply_chat_template(row["prompt"] + end, tokenize=False) for end in ends]
