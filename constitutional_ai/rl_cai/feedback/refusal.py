"""Detect refusals to judge: aligned models often refuse to compare harmful answers. This is ours, not the paper's.

A refusal is neither a tie nor a label. Reasoning may quote an answer that refuses, or call an answer wrong, so only a
text that declines before it names an answer counts as a refusal.
"""

from __future__ import annotations

import re

from constitutional_ai.detectors.signs import DECLINES, UNABLE
from constitutional_ai.detectors.typed_text import as_typed

OPENING = 200
"""A refusal must start within this many characters: a judge that has compared for longer does not refuse."""
DECLINING = re.compile("|".join((*DECLINES, *UNABLE)), re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"|\[\[\[.*?\]\]\]', re.DOTALL)
OPTION = re.compile(r"\(([AB])\)")
ANSWER = re.compile(
    r"\([AB]\)|\b(?:options?|answers?|responses?|replies|reply|assistant|both|neither|either|first|second)\b",
    re.IGNORECASE,
)


def refuses_to_judge(text: str) -> bool:
    """Return whether a judge's reasoning or vote refuses to compare.

    >>> from constitutional_ai.rl_cai.feedback.refusal import refuses_to_judge
    >>> refuses_to_judge("I'm sorry, but I can't help with that.")
    True
    >>> refuses_to_judge("Option (A) says I can't help with that, which is safer.")
    False
    """
    own = QUOTED.sub(" ", as_typed(text.strip()))
    declining = DECLINING.search(own[:OPENING])
    chosen = set(OPTION.findall(own))
    return declining is not None and not ANSWER.search(own[: declining.start()]) and len(chosen) != 1
