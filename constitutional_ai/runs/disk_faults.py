"""Say in one sentence what is wrong with the disk, the folder or the limits of a process, and what to do.

Everything on the disk is whole at any moment, so that the same command goes on once the cause is gone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from constitutional_ai.errors import CaiError, DiskFull, InputError

FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}
REMEDIES = {
    errno.EACCES: "Give yourself permission",
    errno.EPERM: "Give yourself permission",
    errno.EROFS: "Mount the disk for writing, or name another place",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
    errno.ENFILE: "Close other programs",
    errno.EIO: "Check the disk",
    errno.ESTALE: "Connect the disk again",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Delete the link that leads to itself",
}
OF_PLACE = {
    errno.ENOENT: "It was moved or deleted. Put it back",
    errno.ENOTDIR: "A file stands where a folder should. Move it away",
    errno.EISDIR: "A folder stands where a file should. Move it away",
    errno.EEXIST: "A file stands where a folder should. Move it away",
    errno.ENOTEMPTY: "Another process writes there. Wait for it",
}
"""Faults that are the user's only if they are about a file of the run: elsewhere they are bugs."""


@contextmanager
def naming_disk_faults(folder: Path) -> Iterator[None]:
    """Turn the system's errors in a block that works on ``folder`` into one sentence: DiskFull or InputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CaiError) or (sentence := _sentence(error, folder)) is None:
            raise
        raise (DiskFull if error.errno in FULL else InputError)(sentence) from error


def _sentence(error: OSError, folder: Path) -> str | None:
    """Return what to tell the user; None if the error may be a bug."""
    number, path = error.errno or 0, Path(os.fsdecode(error.filename)) if error.filename else folder
    then = ", then type the same command."
    if number in FULL:
        return f"the disk is full while writing {path}. Everything before is kept: {FULL[number]}{then}"
    remedy = REMEDIES.get(number) or (OF_PLACE.get(number) if path.is_relative_to(folder) else None)
    return f"cannot use {path}: {os.strerror(number)}. {remedy}{then}" if remedy else None
