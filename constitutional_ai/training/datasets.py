"""Load tokenizers for training, and leave out rows that cannot be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer

from constitutional_ai.models.chat_template import settle
from constitutional_ai.models.local.tokens import cannot_load
from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop
from constitutional_ai.models.rendering import escape_messages, plain_template

TEXTS = ("prompt", "completion", "chosen", "rejected")


def load_tokenizer(path: str | Path, *, padding_side: str = "right") -> Any:
    """Load a tokenizer, and give it a chat template and a padding token if it has none. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side=padding_side)
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = plain_template(tokenizer)
    settle(tokenizer, str(path))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def within(
    rows: Iterable[dict[str, Any]], path: str | Path, max_length: int
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows whose texts all fit into ``max_length`` tokens, and the number of the other rows.

    No text is ever cut. Text that would open a turn is escaped, as in sampling.
    """
    tokenizer = load_tokenizer(path)
    safe = [row | {key: escape_messages(row[key], tokenizer) for key in TEXTS if key in row} for row in rows]

    def fits(text: str) -> bool:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= max_length

    kept = [row for row in safe if all(map(fits, _texts(row, tokenizer)))]
    return kept, len(safe) - len(kept)


def without_stop_strings(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows in which no answer contains a stop string, after which it writes the human's turn (pitfall 17).

    Models in the plain format stop there when sampling, so only chat models and files have such answers. They are not
    cut, because a label is about the whole answer.
    """
    return [
        row
        for row in rows
        if not any(cut_at_stop(m["content"], STOP_STRINGS)[1] for key in TEXTS[1:] for m in row.get(key, ()))
    ]


def _texts(row: dict[str, Any], tokenizer: Any) -> list[str]:
    """Return the texts of a row as the trainer renders them."""
    ends = [row[key] for key in TEXTS[1:] if key in row]
    if not ends:
        return [tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)]
    return [tokenizer.apply_chat_template(row["prompt"] + end, tokenize=False) for end in ends]
