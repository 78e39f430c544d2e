"""Refuse a run folder in which a file is a link to somewhere else, or no file at all.

A run may come from a stranger. A link in it could make a command read or write any file of the user's, and a device is
never read to its end. A folder may be a link: a stage to that of another run, a model to another disk; and weights,
which are read as nothing but numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout

WEIGHTS = (".safetensors", ".bin")


def check_links(run: Path) -> None:
    """Raise InputError for a file in a run's folder, or in the folder of a stage, that is not what it seems."""
    stages = [Path(entry) for entry in os.scandir(run) if entry.is_symlink() and entry.is_dir()]
    for folder in (run, *stages):
        home = folder.resolve()
        for path in _unusual(folder):
            if not path.is_symlink():
                raise InputError(f"{path} is neither a file nor a folder. Delete it.")
            if not _leads_into(path, home):
                raise InputError(
                    f"{path} is a link that leads out of its folder. Put the file itself in its place."
                )


def _unusual(folder: Path) -> Iterator[Path]:
    """Yield everything below a folder that is neither a file nor a folder nor a link to a folder.

    Shards are not looked at: each is a run, of which this is found when it is opened or merged.
    """
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if name != layout.SHARDS or Path(place) != folder]
        for name in names:
            path = Path(place, name)
            if path.suffix not in WEIGHTS and (path.is_symlink() or not path.is_file()):
                yield path


def _leads_into(path: Path, home: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(home) and path.is_file()
    except (OSError, RuntimeError):  # a link to nothing, or in a circle
        return False
