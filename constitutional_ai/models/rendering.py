"""Render conversations as one text, in which no content can open a turn of its own.

A pretrained model has no chat template (SL-15), and TRL needs one: it gets the paper's plain format, which is saved
with the weights. So a trained model uses the same format as the pretrained one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

PLAIN_TEMPLATE = (
    r"{% for message in messages %}"
    r"{{ '\n\n' + {'user': 'Human', 'assistant': 'Assistant', 'system': 'System'}[message['role']] + ': ' }}"
    r"{{ message['content'] }}"
    # Not after earlier answers: ``plain`` writes none there either, and a context must be the text learned from.
    # The line break keeps a text from ending in a token that may also be the padding (stack trap: pad == eos).
    r"{% if loop.last and message['role'] == 'assistant' %}{{ eos_token + '\n' }}{% endif %}"
    r"{% endfor %}"
    r"{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
BOS = r"{{ bos_token }}"
TURN = re.compile(r"(?!\A)^([^\S\n]*(?:Human|Assistant|System)):", re.MULTILINE)
"""Matches line by line, so that a hostile text of line breaks takes no longer than any other."""


def plain_template(tokenizer: Any) -> str:
    """Return the chat template of the plain format.

    It writes a BOS token where the tokenizer puts one before a text: in a template's text it puts none.
    """
    start = tokenizer("")["input_ids"][:1]
    return BOS + PLAIN_TEMPLATE if start and start[0] == tokenizer.bos_token_id else PLAIN_TEMPLATE


def uses_plain_format(tokenizer: Any) -> bool:
    """Return whether a model takes prompts in the plain format: it has no chat template, or ours."""
    return tokenizer.chat_template in (None, "", PLAIN_TEMPLATE, BOS + PLAIN_TEMPLATE)


def escape_tokens(text: str, tokenizer: Any) -> str:
    """Return ``text`` with its control tokens broken, so that none opens a turn: ``<|im_end|>`` → ``< |im_end|>``."""
    # Llama 3 names only two of its control tokens as special ones; the others are just added as such.
    added = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    for token in sorted(added.union(tokenizer.all_special_tokens), key=len, reverse=True):
        if token in text:
            text = text.replace(token, token[0] + " " + token[1:])
    return text


def escape_content(text: str, tokenizer: Any) -> str:
    """Return a turn's content that opens no other turn.

    In the plain format words open turns too: ``Human:`` at the start of a line becomes ``Human :``.
    """
    text = escape_tokens(text, tokenizer)
    return TURN.sub(r"\1 :", text) if uses_plain_format(tokenizer) else text


def escape_messages(messages: Iterable[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """Return messages for the tokenizer's chat template, escaped. Escaped messages do not change again."""
    return [m | {"content": escape_content(m["content"], tokenizer)} for m in messages]
