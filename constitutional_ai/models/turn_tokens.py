"""Find the tokens that open and close turns in a tokenizer's chat template, by rendering a conversation with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from constitutional_ai.models.chat_template import ANSWER, HUMAN, SYSTEM, render
from constitutional_ai.models.thinking import CLOSING

QUESTION = [("user", HUMAN)]
ANSWERED = [*QUESTION, ("assistant", ANSWER)]
SAMPLES = (ANSWERED, [*ANSWERED, *QUESTION], [("system", SYSTEM), *QUESTION])
TEXT_TAG = re.compile(r"<{1,2}[^<>\s]{1,40}>{1,2}|\[/?\w{1,40}\]")
"""Matches a tag such as ``[/INST]``. In some templates tags are ordinary text and no tokens."""
END_OF_THOUGHT = "</think>"
"""Templates cut what an answer says before it, whether or not it is a token."""


class Controls(NamedTuple):
    """What a text must not contain."""

    texts: list[str]
    """The longest first, because one may contain another."""
    pattern: re.Pattern[str]
    """Matches any of them."""


_CONTROLS: WeakKeyDictionary[Any, tuple[Any, Any, Controls]] = WeakKeyDictionary()


def controls(tokenizer: Any) -> Controls:
    """Return every token and tag that opens or closes a turn or a thought, and every special token.

    The result is kept until the tokenizer's template or special tokens change: to list all tokens takes milliseconds.
    """
    template, special = tokenizer.chat_template, tuple(tokenizer.all_special_tokens)
    kept = _CONTROLS.get(tokenizer)
    if kept is None or kept[:2] != (template, special):
        texts = sorted(_controls(tokenizer), key=lambda text: (-len(text), text))
        kept = template, special, Controls(texts, re.compile("|".join(map(re.escape, texts))))
        _CONTROLS[tokenizer] = kept
    return kept[2]


def _controls(tokenizer: Any) -> set[str]:
    added = tokenizer.added_tokens_decoder.values()
    # Llama 3 has only two of its control tokens in ``all_special_tokens``; all are in ``added_tokens_decoder``.
    texts = {
        END_OF_THOUGHT,
        *tokenizer.all_special_tokens,
        *(token.content for token in added if token.special),
    }
    # Some families mark the tokens of turns as ordinary ones: DeepSeek, for example.
    unmarked = {
        t.content for t in added if not t.special and not t.content.isspace() and not t.content.isalnum()
    }
    texts |= {token for token in unmarked if CLOSING.fullmatch(token)}
    for conversation in _rendered(tokenizer):
        texts |= {token for token in unmarked if token in conversation}
        texts |= set(TEXT_TAG.findall(conversation))
    if isinstance(tokenizer.chat_template, str):
        texts |= {match[0] for match in CLOSING.finditer(tokenizer.chat_template)}
    return texts - {""}


def _rendered(tokenizer: Any) -> Iterator[str]:
    """Yield conversations and a prompt, as far as the template takes them."""
    for turns in SAMPLES:
        text = render(tokenizer, turns, add_generation_prompt=turns[-1][0] == "user")
        if text is not None:
            yield text


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the id of the token that follows an answer in the chat template; None if no token ends it.

    A base model with a chat template often ends a text with another token.
    """
    whole = render(tokenizer, ANSWERED)
    if whole is None or ANSWER not in whole:
        return None
    end = whole[whole.rindex(ANSWER) + len(ANSWER) :].lstrip()
    ids = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if not t.content.isspace()}
    return max(((len(text), i) for text, i in ids.items() if text and end.startswith(text)), default=(0, None))[
        1
    ]
