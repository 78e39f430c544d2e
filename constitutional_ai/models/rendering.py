"""Conversations as one text, in which no content opens a turn of its own.

A pretrained model has no chat template (SL-15), and TRL asks for one: it gets the paper's plain format, which is saved
with the weights. So a model that was trained in it speaks it as the pretrained one does.
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
"""Read line by line, so that a hostile text of line breaks takes no longer than another."""


def plain_template(tokenizer: Any) -> str:
    """The plain format, begun as the tokenizer begins any text: a template's text is given no BOS token."""
    begun = tokenizer("")["input_ids"][:1]
    return BOS + PLAIN_TEMPLATE if begun and begun[0] == tokenizer.bos_token_id else PLAIN_TEMPLATE


def uses_plain_format(tokenizer: Any) -> bool:
    """Whether a model is spoken to in the plain format: it has no template, or ours."""
    return tokenizer.chat_template in (None, "", PLAIN_TEMPLATE, BOS + PLAIN_TEMPLATE)


def escape_tokens(text: str, tokenizer: Any) -> str:
    """A control token written out in a text must not open a turn: ``<|im_end|>`` becomes ``< |im_end|>``."""
    # Llama 3 names only two of its control tokens as special ones; the others are just added as such.
    added = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    for token in sorted(added.union(tokenizer.all_special_tokens), key=len, reverse=True):
        if token in text:
            text = text.replace(token, token[0] + " " + token[1:])
    return text


def escape_content(text: str, tokenizer: Any) -> str:
    """As ``escape_tokens``. In the plain format words open a turn too: a line's ``Human:`` becomes ``Human :``."""
    text = escape_tokens(text, tokenizer)
    return TURN.sub(r"\1 :", text) if uses_plain_format(tokenizer) else text


def escape_messages(messages: Iterable[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """For the tokenizer's chat template. What has been through here comes through again as it is."""
    return [m | {"content": escape_content(m["content"], tokenizer)} for m in messages]
