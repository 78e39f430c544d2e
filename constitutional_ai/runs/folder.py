"""Open the directory of a run, for writing or for reading."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout
from constitutional_ai.runs.disk_faults import naming_disk_faults
from constitutional_ai.runs.durable import PART, clear_parts, sync
from constitutional_ai.runs.links import check_links
from constitutional_ai.runs.provenance import Provenance
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Progress

FIRST_FILES = {
    *(layout.RECIPE, layout.CONSTITUTION, layout.RUN),
    *(layout.LOCK, layout.FETCHING, layout.SHARDS),
}
"""What a run may have before its ``run.json`` is written."""


class RunInUse(InputError):
    """Another process works on the run."""


@contextmanager
def open_run(
    folder: Path, texts: Mapping[str, str], progress: Progress, *, elsewhere: str = "set out= to another place"
) -> Iterator[Run]:
    """Open a run directory for writing, by this process alone.

    ``texts`` maps file names (of the recipe and the constitution) to their contents, which are written when a stage is
    begun. Raises InputError when ``folder`` cannot hold a run or is in use; ``elsewhere`` is its advice, in the words
    of the user's command. Faults of the disk in the block are raised as InputError or DiskFull.
    """
    with naming_disk_faults(folder):
        check_folder(folder, elsewhere)
        with locked(folder, elsewhere) as lock:
            _clear(folder)
            here = partial(_check_place, folder, lock, elsewhere)
            yield Run(folder, progress=progress, provenance=Provenance(texts), check_place=here)


def check_folder(folder: Path, elsewhere: str = "set out= to another place") -> None:
    """Create the folder. Raises InputError when that fails, or when the folder has files that are not a run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(PermissionError):  # whoever may enter a folder need not be allowed to read it
            sync(folder.parent)
        known = (folder / layout.RUN).exists() or all(
            p.name.removesuffix(PART) in FIRST_FILES for p in folder.iterdir()
        )
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file, not a folder for a run. {elsewhere.capitalize()}.") from error
    except PermissionError as error:
        raise InputError(f"no permission to write to {folder}. {elsewhere.capitalize()}.") from error
    if not known:
        raise InputError(f"{folder} holds files that are not part of a run. {elsewhere.capitalize()}.")
    check_links(folder)


@contextmanager
def locked(folder: Path, elsewhere: str) -> Iterator[IO[bytes]]:
    """Keep a second process from writing the run. The system releases the lock when the process ends."""
    with _lock_file(folder / layout.LOCK, elsewhere) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunInUse(f"another process is working on {folder}. Wait for it, or {elsewhere}.") from error
        except OSError as error:
            raise InputError(
                f"the disk of {folder} locks no files: {error.strerror}. {elsewhere.capitalize()}."
            ) from error
        yield file


def _lock_file(path: Path, elsewhere: str) -> IO[bytes]:
    """Open the file of the lock, which may be another user's. Raises InputError."""
    try:
        return path.open("ab")
    except OSError as error:
        with suppress(OSError):
            return path.open("rb")
        raise InputError(f"cannot lock {path}: {error.strerror}. {elsewhere.capitalize()}.") from error


def _check_place(folder: Path, lock: IO[bytes], elsewhere: str) -> None:
    """Raise InputError unless the lock is still in the folder: a new run would be begun where the old one was."""
    with suppress(OSError):
        if os.path.samestat((folder / layout.LOCK).stat(), os.fstat(lock.fileno())):
            return
    raise InputError(
        f"{folder} was moved or deleted while this command worked on it. Put it back, then type the same command, or "
        f"{elsewhere}."
    )


def _clear(folder: Path) -> None:
    """Delete what a killed process was writing, save in folders with locks of their own."""
    for path in folder.iterdir():
        if path.name == layout.SHARDS:
            continue
        if path.name.removesuffix(PART) in FIRST_FILES and path.suffix == PART:
            path.unlink()
        elif path.is_dir() and path.suffix == PART:
            shutil.rmtree(path)
        elif path.is_dir() and not path.is_symlink() and not (path / layout.LOCK).exists():
            clear_parts(path)


def read_run(folder: str | Path) -> Run:
    """Open a run for reading. Raises InputError when ``folder`` holds none."""
    path = Path(folder)
    if not (path / layout.RUN).exists():
        known = [str(p.parent) for p in sorted(Path("runs").glob(f"*/{layout.RUN}"))]
        hint = f" Runs here: {', '.join(known)}." if known else " Make one with: cai run demo"
        raise InputError(f"no run in '{folder}'.{hint}")
    check_links(path)
    return Run(path)
