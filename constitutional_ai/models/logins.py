"""Keep user names and passwords of web addresses in memory alone.

A name such as ``server:<model>@http://<user>:<password>@<host>/v1`` is stripped where it comes in, so that no record,
file, message or key of a cache can hold the password. The request finds it here again.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from constitutional_ai.safe_text import LOGIN, without_login

_LOGINS: dict[str, str] = {}
"""The login of each address, with its ``@``."""
_STAT = Path("/proc/self/stat")
_ARGUMENTS = slice(45, 47)
"""The fields, behind the command's name, that say where the arguments of this process begin and end in memory."""


def keep_logins(name: str) -> str:
    """Return a model's name, or its addresses, without user names and passwords, which ``with_login`` then knows."""
    for url in re.findall(r"[a-z]+://[^\s,]*", name):
        if login := LOGIN.search(url):
            _LOGINS[without_login(url)] = login[0]
    return without_login(name)


def with_login(url: str) -> str:
    """Return an address with the user name and password that were last given for it, if any were.

    >>> keep_logins("server:some-model@http://anna:secret@127.0.0.1/v1"), with_login("http://127.0.0.1/v1")
    ('server:some-model@http://127.0.0.1/v1', 'http://anna:secret@127.0.0.1/v1')
    """
    return url.replace("://", f"://{_LOGINS.get(url, '')}", 1)


def hide_in_title() -> None:
    """Overwrite passwords in the arguments that other users of this machine see of this process. Linux only."""
    if not _STAT.exists():
        return
    start, end = map(int, _STAT.read_text(errors="replace").rpartition(")")[2].split()[_ARGUMENTS])
    if not start:
        return
    given = ctypes.string_at(start, end - start)
    shown = re.sub(rb"(?<=://)[^/\s,?#\0]*(?=@)", lambda login: b"x" * len(login[0]), given)
    ctypes.memmove(start, shown, len(shown))
