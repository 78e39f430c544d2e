"""Render conversations as one text, in which no message can open another turn.

A pretrained model has no chat template (SL-15), but TRL needs one: the model gets the paper's plain format, which is
saved with the weights. So a trained model uses the same format as the pretrained one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from constitutional_ai.models.turn_tokens import controls

PLAIN_TEMPLATE = (
    r"{% for message in messages %}"
    r"{{ '\n\n' + {'user': 'Human', 'assistant': 'Assistant', 'system': 'System'}[message['role']] + ': ' }}"
    r"{{ message['content'] }}"
    # Only after the last answer: ``plain`` writes no EOS after earlier ones, and prompts must match training texts.
    # The line break keeps a text from ending in EOS, which may also be the padding (stack trap: pad == eos).
    r"{% if loop.last and message['role'] == 'assistant' %}{{ eos_token + '\n' }}{% endif %}"
    r"{% endfor %}"
    r"{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
BOS = r"{{ bos_token }}"
TURN = re.compile(r"(?!\A)^([^\S\n]*(?:Human|Assistant|System)):", re.MULTILINE)
"""Matches one line at a time, so that a hostile text of many line breaks does not make it slow."""


def plain_template(tokenizer: Any) -> str:
    """Return the chat template of the plain format.

    It writes a BOS token if the tokenizer adds one to a text, because the tokenizer adds none to a rendered template.
    """
    start = tokenizer("")["input_ids"][:1]
    return BOS + PLAIN_TEMPLATE if start and start[0] == tokenizer.bos_token_id else PLAIN_TEMPLATE


def uses_plain_format(tokenizer: Any) -> bool:
    """Return whether a model takes prompts in the plain format: it has no chat template, or ours."""
    return tokenizer.chat_template in (None, "", PLAIN_TEMPLATE, BOS + PLAIN_TEMPLATE)


def escape_tokens(text: str, tokenizer: Any) -> str:
    """Return ``text`` with a space in each control token, so that none works: ``<|im_end|>`` → ``< |im_end|>``.

    These are the special tokens, and all that opens or closes a turn in the chat template (``turn_tokens.py``).
    """
    control = controls(tokenizer)
    if control.pattern.search(text):
        for token in control.texts:
            if token in text:
                text = text.replace(token, token[0] + " " + token[1:])
    return text


def escape_content(text: str, tokenizer: Any) -> str:
    """Return a turn's content, escaped so that it opens no other turn.

    In the plain format ordinary words open turns too: ``Human:`` at the start of a line becomes ``Human :``.
    """
    text = escape_tokens(text, tokenizer)
    return TURN.sub(r"\1 :", text) if uses_plain_format(tokenizer) else text


def escape_messages(messages: Iterable[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """Return messages escaped for the tokenizer's chat template. Escaping them again changes nothing."""
    return [m | {"content": escape_content(m["content"], tokenizer)} for m in messages]
