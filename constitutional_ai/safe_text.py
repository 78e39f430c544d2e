"""Make the text of models and strangers safe to show."""

from __future__ import annotations

import csv
import io
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

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


FORMULAS = ("=", "+", "-", "@", "\t", "\n")
"""Characters that start a formula in a spreadsheet, or that a spreadsheet skips before one."""


def cell(text: str) -> str:
    """Return a stranger's text, escaped so that no spreadsheet reads it as a formula.

    >>> cell("=1+1")
    "'=1+1"
    """
    shown = visible(text)
    return f"'{shown}" if shown.lstrip(" ").startswith(FORMULAS) else shown


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV: None is an empty cell, a number the shortest text that parses to the same.

    >>> csv_text([("=a", 2.0, None)])
    "'=a,2,\\n"
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([[_cell_of(value) for value in row] for row in rows])
    return out.getvalue()


def _cell_of(value: object) -> str:
    if value is None:
        return ""
    return repr(value).removesuffix(".0") if isinstance(value, int | float) else cell(str(value))


LEAST_SECRET = 4
"""Characters of the shortest password that is looked for in messages: shorter ones are parts of words."""
LOGIN = re.compile(r"(?<=://)[^/\s,?#]*@")
"""The user name and password of a web address."""


def whole_characters(text: str) -> str:
    """Return a text that every file can hold: one that is cut inside an emoji may hold half of it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def without_login(text: str) -> str:
    """Return a text without the user names and passwords of the web addresses in it.

    >>> without_login("server:some-model@http://anna:pa@ss@127.0.0.1:8000/v1")
    'server:some-model@http://127.0.0.1:8000/v1'
    """
    return LOGIN.sub("", text)


def secrets_of(addresses: str, *more: str) -> list[str]:
    """Return every form of the logins in web addresses that a text may show, and ``more``, the longest first.

    >>> secrets_of("http://anna:p%40ss@127.0.0.1/v1")
    ['YW5uYTpwQHNz', 'anna:p%40ss', 'p%40ss', 'anna', 'p@ss']
    """
    secrets = set(more)
    for login in LOGIN.findall(addresses):
        name, _, password = login.removesuffix("@").partition(":")
        plain = f"{unquote(name)}:{unquote(password)}".encode()
        secrets |= {login.removesuffix("@"), name, password, unquote(password), b64encode(plain).decode()}
    return sorted((s for s in secrets if len(s) >= LEAST_SECRET), key=lambda secret: (-len(secret), secret))
