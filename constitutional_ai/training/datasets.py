"""Load tokenizers for training, and leave out rows that cannot be trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer

from constitutional_ai.errors import RecordError
from constitutional_ai.models.chat_template import rendered, settle
from constitutional_ai.models.local.tokens import NO_CODE, cannot_load, give_padding
from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop
from constitutional_ai.models.refused_turns import TurnFilter
from constitutional_ai.models.rendering import escape_messages, plain_template
from constitutional_ai.models.turn_tokens import end_of_turn

TEXTS = ("prompt", "completion", "chosen", "rejected")


def load_tokenizer(path: str | Path, *, padding_side: str = "right") -> Any:
    """Load a tokenizer, and give it a chat template and a padding token if it has none. Raises ModelError.

    Its end of text is the token that ends an answer in its chat template, so that trainers sample up to it.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side=padding_side, **NO_CODE)
    except (OSError, ValueError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = plain_template(tokenizer)
    settle(tokenizer, str(path))
    give_padding(tokenizer, str(path))
    turn = end_of_turn(tokenizer)
    # A template that writes the variable eos_token would write another text.
    if turn not in (None, tokenizer.eos_token_id) and "eos_token" not in tokenizer.chat_template:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(turn)
    return tokenizer


def within(
    rows: Iterable[dict[str, Any]], path: str | Path, max_length: int
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows whose texts all fit into ``max_length`` tokens, and the number of the other rows.

    No text is ever cut. Text that would open a turn is escaped, as in sampling. A row that the chat template refuses is
    one of the others.
    """
    tokenizer, kept, left_out = load_tokenizer(path), [], 0
    for row in rows:
        safe = row | {key: escape_messages(row[key], tokenizer) for key in TEXTS if key in row}
        if _longest(safe, tokenizer) > max_length:
            left_out += 1
        else:
            kept.append(safe)
    return kept, left_out


def _longest(row: dict[str, Any], tokenizer: Any) -> float:
    """Return the tokens of the longest text of a row; infinite if the chat template refuses one."""
    try:
        texts = _texts(row, tokenizer)
    except RecordError:
        return math.inf
    return max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)


def without_refused(rows: Iterable[dict[str, Any]], path: str | Path) -> list[dict[str, Any]]:
    """Return the rows whose turns the chat template takes: some refuse two turns of one role in a row."""
    turns = TurnFilter(load_tokenizer(path))
    return [row for row in rows if all(turns.takes_messages(row["prompt"] + end) for end in _ends(row))]


def _ends(row: dict[str, Any]) -> list[Any]:
    """Return what follows a row's prompt in each of its texts."""
    return [row[key] for key in TEXTS[1:] if key in row] or [[]]


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
    return [rendered(tokenizer, row["prompt"] + end, add_generation_prompt=not end) for end in _ends(row)]
