"""Write a constitution as instructions that stand before a conversation: the baseline that trains nothing.

Ours, not the paper's. If a model that merely reads the principles answers as well as one that was trained on them, the
training has earned nothing.
"""

from __future__ import annotations

from constitutional_ai.constitutions.constitution import Constitution

OPENING = (
    "You are an assistant who follows the principles below. Some describe you, some ask which of several replies is "
    "best, and some ask for a reply to be mended. Give the reply that all of them would be content with, and do not "
    "mention them."
)


def as_instructions(constitution: Constitution) -> str:
    """Return the opening and one line for each principle: its ``upheld``, or else ``preference``, or else ``revision``.

    A principle that applies only to some prompts is among them, because the text is the same for every prompt.
    """
    lines = [p.upheld or p.preference or p.revision or "" for p in constitution.principles]
    return "\n".join([OPENING, *(f"- {' '.join(line.split())}" for line in lines)])
