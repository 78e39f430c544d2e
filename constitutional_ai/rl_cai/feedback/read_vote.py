"""Read which option a feedback model's reply votes for (method ``votes``).

A vote is read only where one option is named as the better one. A model that argues names both, and may say what speaks
against one: "(A) is harmful" is no vote for A. Whatever stays unclear is no vote, because a guess would be bias.
"""

from __future__ import annotations

import re
from typing import Literal

from constitutional_ai.models.thinking import split_thought

Vote = Literal["A", "B"]

BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{)?\s*\(?\s*([AB])\s*\)?\s*\}*", re.IGNORECASE)
MARKS = re.compile(r"[*_`\"“”$]+")
NAMED = re.compile(
    r"\(\s*([AB])\s*\)|\[+\s*([AB])\s*\]+|\b(?:option|response|answer|reply|choice|assistant)\s+([AB])\b(?!')"
    r"|^\W*([AB])(?=\s*(?:[.,:;!)\n-]|$|(?:is|because|since|as)\b))",
    re.IGNORECASE,
)
"""An option in one of the usual forms. A bare letter counts only where the reply begins with it."""
SPOKEN = (
    r"(?:answer|choice|choose|chose|choosing|pick|picking|select|prefer|vote|verdict|decision|winner|option)"
)
DECIDED = re.compile(
    rf"\b{SPOKEN}\b(?:\s+\w+){{0,3}}?\s*(?:is|be|:|=|for|with)?\s*(not\s+)?(?:<([AB])>|([AB])(?=\W*(?:$|[.!\n])))",
    re.IGNORECASE,
)
"""A sentence that says what the model chooses, after ``NAMED`` has been written as ``<A>``."""
TOGETHER = re.compile(r"<[AB]>\s*(?:,|/|&|and|or|nor|,\s*and|vs\.?|versus)\s*<[AB]>", re.IGNORECASE)
MENTION = re.compile(r"<([AB])>")
CLAUSE_END = re.compile(r"[.;,\n<>]")

NEGATION = re.compile(r"\b(?:not|never|neither|cannot|no)\b|n't\b", re.IGNORECASE)
REJECTS = re.compile(
    r"\b(?:not|rather than|over|instead of|unlike|avoid|reject\w*|against)\s*(?:the\s+)?$", re.IGNORECASE
)
IS = r"^\s*(?:(?:is|was|are|seems|sounds|looks|would be|feels)|(?:contains|encourages|promotes|gives))\b"
BAD = (
    r"(?:harmful|worse|worst|bad|wrong|rude\w*|unsafe|dangerous|toxic|unethical|illegal|biased|racist|sexist|offensive"
    r"|inappropriate|incorrect|unhelpful|evasive|unacceptable|cruel|inferior)"
)
GOOD = (
    r"(?:better|best|preferable|preferred|safer|safest|right|correct|superior|harmless|acceptable|the one"
    r"|(?:less|least) " + BAD + r"|(?:more|most) (?:helpful|harmless|honest|ethical|appropriate|polite))"
)
IS_GOOD = re.compile(
    rf"{IS}(?:\s+(?:clearly|much|far|the|a|by far|overall|also|definitely))*\s+{GOOD}\b", re.IGNORECASE
)
IS_BAD = re.compile(rf"{IS}(?:\s+\w+){{0,2}}?\s+{BAD}\b", re.IGNORECASE)
SAYS = re.compile(IS, re.IGNORECASE)
COMPARED = re.compile(r"\b(?:than|to)\s*$", re.IGNORECASE)


def read_vote(text: str) -> Vote | None:
    """Return the option that a reply votes for, or None if it is unclear. A thought in the reply is not read.

    >>> read_vote("(B)"), read_vote("Answer: b"), read_vote("not (A)"), read_vote("(A) or (B)")
    ('B', 'B', 'B', None)
    """
    answer = split_thought(text).answer
    answer = BOXED.sub(lambda boxed: f" The answer is ({boxed[1]}). ", answer)
    answer = NAMED.sub(lambda named: f"<{_letter(named)}>", MARKS.sub("", answer))
    if re.fullmatch(r"\W*[ab]\W*", answer):
        return _letter(answer.strip(" \n.():"))
    decided = [match for match in DECIDED.finditer(answer) if not _is_denied(answer, match)]
    if decided:
        letter = _letter(decided[-1][2] or decided[-1][3])
        return _other(letter) if decided[-1][1] else letter
    return _weighed(answer)


def _is_denied(text: str, match: re.Match[str]) -> bool:
    """Return whether a negation stands before the verb: "I cannot choose (A)"."""
    clause = re.split(r"[.;,\n]", text[: match.start()])[-1]
    return NEGATION.search(clause) is not None


def _weighed(text: str) -> Vote | None:
    """Return the option that is named without an objection, or the other one if one is objected to."""
    chosen: set[Vote] = set()
    rejected: set[Vote] = set()
    if TOGETHER.search(text):
        return None
    for mention in MENTION.finditer(text):
        letter = _letter(mention)
        before, after = (
            CLAUSE_END.split(text[: mention.start()])[-1],
            CLAUSE_END.split(text[mention.end() :])[0],
        )
        denied = re.match(r"\s*(?:is|was|are|seems)\s*(?:not|n't)\s+", after) or re.match(r"\s*isn't\s+", after)
        plain = "  is " + after[denied.end() :] if denied else after
        good, bad = IS_GOOD.match(plain) is not None, IS_BAD.match(plain) is not None
        if REJECTS.search(before) or (bad and not good and not denied) or (good and denied):
            rejected.add(letter)
        elif NEGATION.search(before):
            return None
        elif good or (bad and denied) or not (SAYS.match(after) or COMPARED.search(before)):
            chosen.add(letter)
    if len(chosen) == 1:
        return None if chosen == rejected else next(iter(chosen))
    return _other(next(iter(rejected))) if not chosen and len(rejected) == 1 else None


def _letter(match: re.Match[str] | str) -> Vote:
    text = match if isinstance(match, str) else next(filter(None, match.groups()))
    return "A" if text.upper() == "A" else "B"


def _other(letter: Vote) -> Vote:
    return "B" if letter == "A" else "A"
