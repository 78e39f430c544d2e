"""Notice that a file of a complete stage is no longer what the stage wrote.

Later stages, the report and the evaluations would otherwise mix records that the recipe made with others.
"""

from __future__ import annotations

from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.runs.rows import digest_file

_DIGESTS: dict[Path, tuple[tuple[int, ...], str]] = {}
"""Digests of files by path, each with a stamp of the file, so that none is read twice in a process."""


def check_written(path: Path, stage: str, expected: str) -> None:
    """Raise InputError unless the file of a complete ``stage`` has the digest ``expected``; an empty one is unknown."""
    if not expected or (path.is_file() and _digest_once(path) == expected):
        return
    what = "was changed" if path.exists() else "was deleted"
    raise InputError(
        f"{path} {what} after {stage} was complete. Restore it, or make the stage again with --redo {stage}."
    )


def _digest_once(path: Path) -> str:
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    if path not in _DIGESTS or _DIGESTS[path][0] != stamp:
        _DIGESTS[path] = (stamp, digest_file(path))
    return _DIGESTS[path][1]
