"""Open the directory of a run, for writing or for reading."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from constitutional_ai.errors import InputError, StageChanged
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import PART, write_atomically
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Progress

FIRST_FILES = {layout.RECIPE, layout.CONSTITUTION, layout.RUN, layout.LOCK}
"""Files that a run may have before its ``run.json`` is written."""


@contextmanager
def open_run(folder: Path, texts: Mapping[str, str], progress: Progress) -> Iterator[Run]:
    """Open a run directory for writing, by this process alone.

    ``texts`` are written to it by file name: the recipe and the constitution. Where a stage was made with other
    settings (StageChanged), those that were there before are put back. Raises InputError where no run can be.
    """
    _check_folder(folder)
    with _locked(folder):
        before = {name: (folder / name).read_text() for name in texts if (folder / name).exists()}
        for name, text in texts.items():
            write_atomically(folder / name, text)
        try:
            yield Run(folder, progress)
        except StageChanged:
            for name, text in before.items():
                write_atomically(folder / name, text)
            raise


def _check_folder(folder: Path) -> None:
    """Make the folder. Raises InputError when that is impossible, or when it holds other files than those of a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = (folder / layout.RUN).exists() or all(
            p.name.removesuffix(PART) in FIRST_FILES for p in folder.iterdir()
        )
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file, not a folder for a run. Set out= to another place.") from error
    except PermissionError as error:
        raise InputError(f"no right to write to {folder}. Set out= to another place.") from error
    if not known:
        raise InputError(f"{folder} holds files that are not of a run. Set out= to another place.")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two processes from writing one run. The lock ends with its process."""
    with (folder / layout.LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another process is working on {folder}. Wait for it, or set out= to another place."
            ) from error
        yield


def read_run(folder: str | Path) -> Run:
    """Open a run for reading. Raises InputError when there is none."""
    path = Path(folder)
    if not (path / layout.RUN).exists():
        known = [str(p.parent) for p in sorted(Path("runs").glob(f"*/{layout.RUN}"))]
        hint = f" Runs here: {', '.join(known)}." if known else " Make one with: cai run demo"
        raise InputError(f"no run in '{folder}'.{hint}")
    return Run(path)
