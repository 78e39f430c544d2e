"""Cut a prompt off two replies that both repeat it from the start."""

from __future__ import annotations

import re

DOUBLED = 4
"""Least number of words of a prompt that is cut off two replies that begin with it. Both may begin with "Hi"."""
DOUBLED_CHARACTERS = 12
"""Least length of such a prompt where it is not ASCII: many scripts have no spaces between words."""
NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""


def without_prompt(replies: tuple[str, str], prompt: str) -> tuple[str, str]:
    """Return the replies without the prompt, where both are texts that repeat it from the start."""
    long = len(prompt.split()) >= DOUBLED or (len(prompt) >= DOUBLED_CHARACTERS and not prompt.isascii())
    if not long or not all(_repeats(reply, prompt) for reply in replies):
        return replies
    return _after(replies[0], prompt), _after(replies[1], prompt)


def _repeats(reply: str, prompt: str) -> bool:
    """Return whether a reply begins with the prompt, and not within a word."""
    after = reply[len(prompt) :][:1]
    within = prompt[-1:].isalnum() and after.isalnum() and not NO_SPACES.match(prompt[-1:])
    return reply.startswith(prompt) and not within


def _after(reply: str, prompt: str) -> str:
    """Return what follows the prompt. The first line keeps its indentation, unless the prompt stands in it."""
    rest = reply.removeprefix(prompt)
    blank = rest[: len(rest) - len(rest.lstrip())]
    return rest[blank.rfind("\n") + 1 :].rstrip() if "\n" in blank else rest.strip()
