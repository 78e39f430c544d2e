"""Read which option a feedback model's reply votes for (method ``votes``).

A vote is read only where one option is named as the better one, or one is objected to. A model that argues names both:
"(A) is harmful" is no vote for A. Whatever stays unclear is no vote, because a guess would be bias.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from constitutional_ai.models.thinking import split_thought

Vote = Literal["A", "B"]

BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\w*\s*\{\s*)?\(?\s*([AB])\s*\)?\s*\}?\s*\}", re.IGNORECASE)
MARKS = re.compile(r"[*_`\"“”$]+")
NOUN = r"(?:option|response|answer|reply|choice|assistant)"
BRACKETED = re.compile(
    rf"(?:\b{NOUN}\s+)?(?:\(\s*([AB])\s*\)|\[+\s*([AB])\s*\]+)|^\W*([AB])\s*\)", re.IGNORECASE
)
FOLLOWS = (
    r"(?=\s*(?:$|[.,:;!?)}\]/\n-])|\s+(?:is|was|because|since|as|over|and|or|nor|to|than|rather|instead)\b)"
)
BARE = re.compile(rf"(?:\b(?i:{NOUN})\s+)?(?<![\w<'’])([AB])(?![\w'’]){FOLLOWS}")
"""A letter without brackets. "A good question" begins with an article."""
SMALL = re.compile(r"\b(answer|vote|choice|verdict)(\s*(?:is|:)\s*)([ab])(?=\W*$)", re.IGNORECASE)
SENTENCE = re.compile(r"[.;!?\n]+")
LETTER = re.compile(r"<([AB])>")
JOINT = re.compile(r"<([AB])>\s*(?:,|/|&|and|or|nor|versus|vs)\s*(?:<|$)")
RATHER = re.compile(r"<([AB])>,?\s*(?:over|to|not|rather than|instead of|than)\s*(?:the\s+)?<[AB]>")

BAD = (
    r"(?:harmful|worse|worst|bad|wrong|rude\w*|unsafe|dangerous|toxic|unethical|illegal|biased|racist|sexist|offensive"
    r"|inappropriate|incorrect|unhelpful|evasive|unacceptable|cruel|inferior|misleading)"
)
FINE = r"(?:helpful|harmless|honest|ethical|appropriate|polite|kind|safe|good|acceptable|correct|right)"
WORSE = rf"(?<!less )(?<!least )(?<!not )\b{BAD}\b|\b(?:less|least) {FINE}\b"
BETTER = (
    rf"\b(?:better|best|preferable|preferred|safer|safest|superior|right|correct|harmless|acceptable|the one(?! to)"
    rf"|(?:less|least|not) {BAD}|(?:more|most) {FINE})\b"
)
REJECTS = re.compile(
    r"\b(?:not|never be|cannot be|against|avoid\w*|reject\w*|except|anything but|other than|opposite of|unlike)"
    r"\s*(?:\w+\s*)?$"
    rf"|(?:{WORSE})[^<,]*$",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:not|never|neither|cannot|no|nor|refuse|decline|hardly|far from|hard to|whether|if|either|both|between)"
    r"\b|n't\b",
    re.IGNORECASE,
)
SPOKEN = re.compile(
    r"\b(?:answer|choice|choos\w*|chose|pick\w*|select\w*|prefer\w*|vote|verdict|decision|winner|go with)\b",
    re.IGNORECASE,
)
COMPARED = re.compile(r"\bthan\s*$", re.IGNORECASE)
IS = r"^\s*(?:is|was|are|seems|sounds|looks|would be|feels)\b"
IS_BETTER = re.compile(
    rf"{IS}(?:\s+(?:clearly|much|far|the|a|by far|overall|also|definitely|indeed))*\s+{BETTER}", re.IGNORECASE
)
IS_WORSE = re.compile(rf"{IS}(?:\s+(?!not\b|less\b|least\b)\w+){{0,2}}?\s+(?:{WORSE})", re.IGNORECASE)
DENIED = re.compile(r"^\s*(?:(?:is|was|are|seems)\s+not|isn't|wasn't)\s+(.*)", re.IGNORECASE | re.DOTALL)
REASON = re.compile(
    r"^\s*(?:$|[,:)}\]/-]|(?-i:[A-Z])|(?:because|since|as|over|rather|instead|for|to)\b)", re.IGNORECASE
)


class Opinion(NamedTuple):
    """What one sentence says of the options."""

    chosen: frozenset[Vote]
    rejected: frozenset[Vote]
    decides: bool
    """Whether it is about the choice itself."""


def read_vote(text: str) -> Vote | None:
    """Return the option that a reply votes for, or None if it is unclear. A thought in the reply is not read.

    >>> read_vote("(B)"), read_vote("Answer: b"), read_vote("not (A)"), read_vote("(A) or (B)")
    ('B', 'B', 'B', None)
    """
    answer = BOXED.sub(r" The answer is (\1). ", split_thought(text).answer)
    if "\\boxed" in answer:  # it holds more than one letter
        return None
    answer = MARKS.sub("", answer)
    if alone := re.fullmatch(r"\W*([ab])\W*", answer, re.IGNORECASE):
        return _letter(alone[1])
    answer = SMALL.sub(lambda small: f"{small[1]}{small[2]}({small[3]})", answer)
    answer = BRACKETED.sub(lambda named: f"<{_letter(next(filter(None, named.groups())))}>", answer)
    answer = BARE.sub(lambda named: f"<{_letter(named[1])}>", answer)
    return _summary([_opinion(s) for s in SENTENCE.split(answer) if LETTER.search(s)])


def _summary(opinions: list[Opinion | None]) -> Vote | None:
    """Return the vote of all sentences. The last decision counts, because models correct themselves."""
    decisions = [one for one in opinions if one is None or one.decides]
    if decisions:
        return _vote(decisions[-1]) if decisions[-1] else None
    clear = [one for one in opinions if one is not None]
    chosen = frozenset[Vote]().union(*[one.chosen for one in clear])
    return _vote(Opinion(chosen, frozenset[Vote]().union(*[one.rejected for one in clear]), False))


def _vote(opinion: Opinion) -> Vote | None:
    chosen = opinion.chosen - opinion.rejected
    if len(opinion.chosen) > 1 or opinion.chosen != chosen:
        return None
    if chosen:
        return next(iter(chosen))
    return _other(next(iter(opinion.rejected))) if len(opinion.rejected) == 1 else None


def _opinion(sentence: str) -> Opinion | None:
    """Return what a sentence says of the options that it names; None if it says nothing clear."""
    sentence = RATHER.sub(r"<\1>", sentence)
    if JOINT.search(sentence):
        return None if SPOKEN.search(sentence) else Opinion(frozenset(), frozenset(), False)
    chosen: set[Vote] = set()
    rejected: set[Vote] = set()
    mentions = list(LETTER.finditer(sentence))
    for number, mention in enumerate(mentions):
        start = mentions[number - 1].end() if number else 0
        end = mentions[number + 1].start() if number + 1 < len(mentions) else len(sentence)
        before, after = sentence[start : mention.start()], sentence[mention.end() : end]
        verdict = _verdict(before, after)
        if verdict is None and SPOKEN.search(before):
            return None
        (chosen if verdict else rejected if verdict is False else set()).add(_letter(mention[1]))
    decides = bool(SPOKEN.search(sentence)) and bool(chosen or rejected)
    return Opinion(frozenset(chosen), frozenset(rejected), decides)


def _verdict(before: str, after: str) -> bool | None:
    """Return whether the words around an option choose it; False if they object to it, None if they do neither."""
    if COMPARED.search(before):
        return None
    denied = DENIED.match(after)
    plain = f" is {denied[1]}" if denied else after
    good, bad = IS_BETTER.match(plain) is not None, IS_WORSE.match(plain) is not None
    if REJECTS.search(before):
        return None if good or bad else False
    if DOUBT.search(before):
        return None
    if good != bad:
        return good != (denied is not None)
    return True if REASON.match(after) else None


def _letter(text: str) -> Vote:
    return "A" if text.upper() == "A" else "B"


def _other(letter: Vote) -> Vote:
    return "B" if letter == "A" else "A"
