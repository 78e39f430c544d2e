"""Weights in the form that another engine reads, made once from a checkpoint and kept by the digest of its files.

A checkpoint of a run thus loads into every engine without hand work. The folder may be deleted at any time.
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


def exported(source: Path, form: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` has filled for exactly these weights, now or before.

    ``form`` names what is made and by which version of what: another version makes it anew. Two processes may make
    the same at once: the first to finish is kept, and what is killed half-way leaves nothing behind under its name.
    """
    folder = machine.cache_folder() / "exported" / f"{digest_of_weights(source)}-{form}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix="making-"))
    try:
        make(scratch)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def digest_of_weights(folder: Path) -> str:
    """sha256 of a checkpoint's configuration and weights, and of their names; a tokenizer changes neither."""
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob(WEIGHTS))]:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name} {content}\n".encode())
    return digest.hexdigest()[:DIGITS]


def numbers(folder: Path) -> int:
    """Of all weights in a checkpoint: read off the files' headers."""
    count = 0
    for file in folder.glob(WEIGHTS):
        with safe_open(file, "pt") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


def local_folder(path: Path | str) -> Path:
    """Where the files of a folder or hub id are on this machine; fetches them when they are not here yet.

    Raises OSError when they cannot be had.
    """
    if (folder := Path(path)).is_dir():
        return folder
    from huggingface_hub import snapshot_download

    # Safetensors and what describes them: no pickle, no code.
    return Path(snapshot_download(str(path), allow_patterns=[WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt"]))
