"""Notice that a file of a complete stage is no longer what the stage wrote.

Later stages, the report and the evaluations would otherwise mix records that the recipe made with others.
``stage.json`` has the digest and the size of every file that is read later. Large files, which are weights, are
compared by size alone until something is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import PART
from constitutional_ai.runs.rows import digest_file

FILES = (
    layout.DRAFTED,
    layout.GATE,
    layout.GATE_FAILURES,
    layout.FAILURES,
    layout.ITEMS,
    layout.DATASET,
    layout.STEPS,
    layout.HELD_OUT_PAIRS,
    layout.PREFERENCE_MODEL_REPORT,
    layout.METRICS,
)
"""Files of a stage that are read later, beside ``records.jsonl``, whose digest is the stage's output."""
FOLDERS = (layout.WEIGHTS, layout.ADAPTER, layout.SECOND, layout.PRETRAINING, layout.SNAPSHOTS)
"""Folders of a stage, of which all files are read later, save those that the cards of models bring."""
OF_CARDS = {"README.md", layout.RECIPE, layout.CONSTITUTION}
LARGE = 2**25
"""Size in bytes above which files are read only when something is made of them."""
_DIGESTS: dict[Path, tuple[tuple[int, ...], str]] = {}
"""Digests of files by path, each with a stamp of the file, so that none is read twice in a process."""


def digests_in(stage: Path) -> dict[str, str]:
    """Return the digest and size of each file of a stage that is read later, by its path in the stage's folder."""
    files = {path.relative_to(stage).as_posix(): path for path in sorted(_files_of(stage))}
    return {name: f"{digest_file(path)} {path.stat().st_size}" for name, path in files.items()}


def _files_of(stage: Path) -> Iterator[Path]:
    yield from (file for name in FILES if (file := stage / name).is_file())
    for path in (path for name in FOLDERS for path in (stage / name).rglob("*")):
        of_training = layout.CHECKPOINTS in path.relative_to(stage).parts
        if path.is_file() and path.name not in OF_CARDS and path.suffix != PART and not of_training:
            yield path


def check_written(path: Path, stage: str, expected: str, *, in_full: bool = True) -> None:
    """Raise InputError unless the file of a complete ``stage`` is as ``expected``: a digest, or a digest and a size.

    An empty digest is unknown. Large files of which the size is known are not read unless ``in_full``.
    """
    digest, _, size = expected.partition(" ")
    if not digest:
        return
    if path.is_file() and size in ("", str(path.stat().st_size)):
        unread = size and int(size) > LARGE and not in_full
        if unread or _digest_once(path) == digest:
            return
    what = "was changed" if path.exists() else "was deleted"
    raise InputError(
        f"{path} {what} after {stage} was complete. Restore it, or make the stage again with --redo {stage}."
    )


def _digest_once(path: Path) -> str:
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if path not in _DIGESTS or _DIGESTS[path][0] != stamp:
        _DIGESTS[path] = (stamp, digest_file(path))
    return _DIGESTS[path][1]
