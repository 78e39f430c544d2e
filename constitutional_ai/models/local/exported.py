"""Exports a checkpoint to the form of another engine, once, and keeps it by the digest of the checkpoint's files.

A checkpoint of a run thus loads into every engine by itself. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from constitutional_ai import machine

WEIGHTS = "*.safetensors"
DIGITS = 20


def export_once(source: Path, form: str, write: Callable[[Path], None]) -> Path:
    """Return the folder that ``write`` has filled for exactly these weights, now or before.

    ``form`` names the form and its version: another version is another export.
    """
    return written_once(machine.cache_folder() / "exported" / f"{digest_of_weights(source)}-{form}", write)


def written_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return ``folder``; ``write`` fills it where it is missing.

    Two processes may do so at once: the first to finish is kept. One that is killed leaves nothing under this name.
    Raises InputError if anybody may write there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    machine.refuse_open_folder(folder.parent)
    if folder.is_dir():
        machine.refuse_open_folder(folder)
        return folder
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix="making-"))
    try:
        write(scratch)
        machine.follow_umask(scratch)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def digest_of_weights(folder: Path) -> str:
    """Return the sha256 of a checkpoint's configuration and weights, and of their names."""
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob(WEIGHTS))]:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name} {content}\n".encode())
    return digest.hexdigest()[:DIGITS]


def parameter_count(folder: Path) -> int:
    """Return the number of a checkpoint's parameters, from the headers of its files."""
    count = 0
    for file in folder.glob(WEIGHTS):
        with safe_open(file, "pt") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


def local_folder(path: Path | str) -> Path:
    """Return where the files of a folder or hub id are on this machine; download them if needed.

    Raises OSError when that fails.
    """
    if (folder := Path(path)).is_dir():
        return folder
    from huggingface_hub import snapshot_download

    # Safetensors and what describes them: no pickle, no code.
    return Path(snapshot_download(str(path), allow_patterns=[WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt"]))
