"""Write a text with the characters that a keyboard types, so that patterns need to know only those.

Models and web pages write no-break spaces, curly quotes, full-width letters and zero-width characters, which look like
what is typed or like nothing. A pattern for "I can't" must match all of them.
"""

from __future__ import annotations

import unicodedata


def as_typed(text: str) -> str:
    """Return the text with straight quotes, plain spaces, hyphens and letters, and without what has no width.

    Letters follow Unicode's compatibility form (NFKC), so a text may become longer. Newlines stay.

    >>> from constitutional_ai.detectors.typed_text import as_typed
    >>> as_typed("I\u00a0can\u2019t \u200bhelp.")
    "I can't help."
    """
    return unicodedata.normalize("NFKC", text.translate(TYPED)).translate(TYPED)


def same_length(text: str) -> str:
    """Return the text with straight quotes, plain spaces and hyphens, each in the place of the character it replaces.

    A span of the result is the same span of the text, which a caller can cut out verbatim.
    """
    return text.translate(REPLACED)


SINGLE, DOUBLE, HYPHENS = (
    "\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4\uff07",
    "\u201c\u201d\u201e\u201f\u2033\uff02",
    "\u2010\u2011",
)
SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
LINES = "\u0085\u2028\u2029"
NO_WIDTH = (
    0xAD,
    0x34F,
    0x61C,
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
)
REPLACED = {
    ord(one): plain
    for many, plain in ((SINGLE, "'"), (DOUBLE, '"'), (HYPHENS, "-"), (SPACES, " "), (LINES, "\n"))
    for one in many
}
TYPED: dict[int, str | None] = {**REPLACED, **dict.fromkeys(NO_WIDTH)}
