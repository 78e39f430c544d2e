"""Make the text of models and strangers safe to show."""

from __future__ import annotations

_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: "\u2421", 0x2028: "\n", 0x2029: "\n"}
    | dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "\ufffd")
    | {code: f"⟨U+{code:04X}⟩" for code in _BIDI}
)


def visible(text: str) -> str:
    r"""Replace characters that move the cursor or change the reading order by visible symbols.

    >>> visible("\x1b[2Jgone?")
    '␛[2Jgone?'
    """
    return text.replace("\r\n", "\n").translate(_VISIBLE)
