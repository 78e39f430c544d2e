"""Tokenizers for training, and the rows that are fit for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer

from constitutional_ai.models.local.tokens import cannot_load
from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop
from constitutional_ai.models.rendering import escape_messages, plain_template

TEXTS = ("prompt", "completion", "chosen", "rejected")


def load_tokenizer(path: str | Path, *, padding_side: str = "right") -> Any:
    """A tokenizer with a chat template and a padding token. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side=padding_side)
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = plain_template(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def within(
    rows: Iterable[dict[str, Any]], path: str | Path, max_length: int
) -> tuple[list[dict[str, Any]], int]:
    """The rows whose every text fits into ``max_length`` tokens, and how many do not. No text is ever cut.

    What would open a turn in a text is broken up, so that none does in training either.
    """
    tokenizer, kept, left_out = load_tokenizer(path), [], 0
    for row in rows:
        safe = row | {key: escape_messages(row[key], tokenizer) for key in TEXTS if key in row}
        if (
            max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in _texts(safe, tokenizer))
            > max_length
        ):
            left_out += 1
        else:
            kept.append(safe)
    return kept, left_out


def without_stop_strings(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in no answer of which somebody speaks for the human (pitfall 17).

    A model in the plain format stops there as it is sampled; this is for chat models, and for files. Such answers are
    not cut: a label is about the whole of them.
    """
    return [
        row
        for row in rows
        if not any(cut_at_stop(m["content"], STOP_STRINGS)[1] for key in TEXTS[1:] for m in row.get(key, ()))
    ]


def _texts(row: dict[str, Any], tokenizer: Any) -> list[str]:
    ends = [row[key] for key in TEXTS[1:] if key in row]
    if not ends:
        return [tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)]
    return [tokenizer.apply_chat_template(row["prompt"] + end, tokenize=False) for end in ends]
