"""Keep files through a kill and through a power cut: what is synced stays, and a folder goes all at once.

A kill loses nothing that was written. A power cut loses what the system had not yet put on the disk: contents, names
and deletions alike, in any order. So a file is synced before its name is, and both before another file relies on them.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

PART = ".part"
"""Suffix of a file or folder while it is written or deleted. One that a killed process left may be deleted."""


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk, where its file system can tell."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk. Links in it are not followed."""
    for place, _, names in os.walk(folder, topdown=False):
        for path in (Path(place) / name for name in names):
            if not path.is_symlink():
                sync(path)
        sync(Path(place))


def remove(path: Path) -> None:
    """Delete a file, if there is one, so that it is gone after a power cut too."""
    if path.exists():
        path.unlink()
        sync(path.parent)


def discard(path: Path) -> None:
    """Delete a folder, if there is one; after a kill, all of it is there or nothing.

    A link is deleted without what it leads to.
    """
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        gone = path.with_name(path.name + PART)
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        sync(path.parent)
        shutil.rmtree(gone)


def clear_parts(folder: Path) -> None:
    """Delete what a killed process was writing or deleting in a folder and below it."""
    for path in sorted(folder.rglob(f"*{PART}")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
