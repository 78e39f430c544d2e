r"""Cut off openers such as "Here is the revised response:", which chat models write before a revision.

An opener calls the text a revision. "Here is a list:" is part of the answer and stays. The patterns prefer misses to
false alarms: to leave an opener in does less harm than to cut an answer.
"""

from __future__ import annotations

import re

from constitutional_ai.detectors.typed_text import same_length

CLOSING = {'"': '"', "“": "”", "«": "»"}
"""The closing mark of each quotation mark that may surround a whole text."""


def without_opener(text: str) -> tuple[str, str]:
    """Return the opener, verbatim, and the rest of the text. The opener is empty if there is none.

    Quotation marks around the whole text are part of the opener. The closing mark is then cut off the end; ``CLOSING``
    gives it for each mark in the opener.

    >>> from constitutional_ai.detectors.opener import without_opener
    >>> without_opener('Sure! Here is the revised response: "Please ask a doctor."')
    ('Sure! Here is the revised response: "', 'Please ask a doctor.')
    >>> without_opener("Here is how to bake bread: mix flour and water.")
    ('', 'Here is how to bake bread: mix flour and water.')
    """
    before, span, typed = None, (0, len(text)), same_length(text)
    while span != before:
        before, span = span, _inside(text, typed, *span)
    start, end = span
    return (text[:start], text[start:end]) if text[:start].strip() else ("", text)


def _inside(text: str, typed: str, start: int, end: int) -> tuple[int, int]:
    """Return the span of the text without one opener or pair of marks, and without the space around it."""
    if opener := OPENER.match(typed, start, end):
        start = opener.end()
    elif _is_quoted(text[start:end]):
        start, end = start + 1, end - 1
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _is_quoted(text: str) -> bool:
    """Return whether one pair of marks surrounds the whole text, unlike the two pairs in ``"a" and "b"``."""
    opening, inner, closing = text[:1], text[1:-1], text[-1:]
    return len(text) > 1 and CLOSING.get(opening) == closing and opening not in inner and closing not in inner


# The patterns are matched with text as typed. Every part is bounded, because the texts are hostile. No part matches a
# quotation mark, so each mark in an opener surrounded the whole text.
REST = r"[^:.!?\n\"«»]"
WORDS = r"(?:[\w'-]+,? ){0,2}"
I_WOULD = r"I(?:'d| would| could| might)"
REVISED = (
    r"(?:revised|re-?written|re-?worded|re-?phrased|re-?worked|updated|improved|edited|corrected|modified|amended"
    r"|refined|alternative)"
)
REVISE = r"(?:revised?|re-?writ(?:e|ten)|re-?wrote|re-?phrased?|re-?word(?:ed)?|edit(?:ed)?|modif(?:y|ied))"
BETTER = r"(?:better|safer|kinder|(?:more|less) [\w-]+(?:,? and (?:more |less )?[\w-]+)?)"
RESPONSE = r"(?:response|answer|reply)\b"
# Matches "a version of the response", but not "of your essay".
OF_IT = rf"(?! (?:of|for) (?!{WORDS}(?:[\w'-]+ )?{RESPONSE}))"
VERSION = rf"(?:version|text)\b{OF_IT}"
REVISION = (
    rf"(?:an? |the |my |one |another |your )"
    rf"(?:{WORDS}{REVISED} {WORDS}(?:{RESPONSE}|{VERSION})|{WORDS}{BETTER} (?:{RESPONSE}|{VERSION})"
    rf"|(?:[\w-]+ )?(?:revision|rewrite|rewording)\b{OF_IT})"
)
# Does not match "updated response plan".
GOES_ON = (
    r"(?: ?[,;(–—]| (?:that|which|with|without|to|of|for|in|from|as|by|and|free|where|while|based|\w+ing)\b)"
)
MORE = rf"(?:{GOES_ON}{REST}{{0,160}})?"
TITLE = rf"{REVISED} (?:assistant(?:'s)? )?(?:{RESPONSE}|(?:version|text)\b)"
COLON = r"[*_]{0,3}:[*_]{0,3}(?=[\s\"«]|\Z)"
END = rf"(?:{COLON}|[.!]?[*_]{{0,3}}[ \t]*(?:\n|\Z))"
BEFORE_A_TEXT = r"(?=[ \t]*(?:[\n\"«]|\Z))"

CHAT = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|ok(?:ay)?|all ?right|yes|no problem|understood"
    r"|got it)[,.!]*(?: [–—-])?\s+",
    rf"(?:I'd|I would|I'm|I am) (?:be )?(?:more than |very )?(?:happy|glad) to {REST}{{1,80}}[.!]\s+",
    rf"(?:I apologi[sz]e|(?:I'm |I am )?(?:very |so )?sorry|(?:my )?apologies) for (?:my|the|that|any)\b"
    rf"{REST}{{0,80}}[.!,]\s+",
    rf"you(?:'| a)re (?:absolutely |quite )?right{REST}{{0,80}}[.!]\s+",
    rf"thank(?:s| you) for {REST}{{1,80}}[.!]\s+",
)
"""Phrases that chat models write before the opener proper. They are cut off with it, never alone."""

HANDED_OVER = (
    rf"(?:here(?:'s| is| are)|below is|the following is) {REVISION}{MORE}{END}",
    rf"this is {REVISION}{MORE}{COLON}",
    # Not "the answer: 42", nor "this is a normal response to grief:".
    rf"here(?:'s| is) (?:an? |my |one |another ){WORDS}(?:response|reply)\b{MORE}{COLON}",
    rf"(?:here(?:'s| is) how )?(?:{I_WOULD}|I(?:'ve| have)?) {REVISE} (?:my|the|your|this|that) {WORDS}{RESPONSE}"
    rf"{MORE}{END}",
    rf"{REVISION} (?:(?:would|could|might|should|may) (?:be|read)|(?:is|reads) as follows){REST}{{0,40}}{COLON}"
    rf"{BEFORE_A_TEXT}",
    rf"(?:the|my) {REVISED} {WORDS}{RESPONSE} (?:is|reads){COLON}",
    # Labels and headings.
    rf"(?:#{{1,6}} |[*_\[]{{1,3}})?(?:(?:the |my )?{TITLE}|revision|rewrite|revised|re-?written)"
    rf"(?: \(?\d\)?)?\]?{COLON}",
    rf"(?:#{{1,6}} |[*_]{{2,3}})(?:{TITLE}|revision)[*_]{{0,3}} ?(?:\n|\Z)",
)
OPENER = re.compile(rf"\s*(?:{'|'.join(CHAT)}){{0,3}}(?:{'|'.join(HANDED_OVER)})", re.IGNORECASE)
