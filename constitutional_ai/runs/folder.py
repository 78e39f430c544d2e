"""Open the directory of a run, for writing or for reading."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout
from constitutional_ai.runs.links import check_links
from constitutional_ai.runs.provenance import Provenance
from constitutional_ai.runs.rows import PART
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Progress

FIRST_FILES = {layout.RECIPE, layout.CONSTITUTION, layout.RUN, layout.LOCK}
"""Files that a run may have before its ``run.json`` is written."""


@contextmanager
def open_run(
    folder: Path, texts: Mapping[str, str], progress: Progress, *, elsewhere: str = "set out= to another place"
) -> Iterator[Run]:
    """Open a run directory for writing, by this process alone.

    ``texts`` maps file names (of the recipe and the constitution) to their contents, which are written when a stage is
    begun. Raises InputError when ``folder`` cannot hold a run or is in use; ``elsewhere`` is its advice, in the words
    of the user's command.
    """
    _check_folder(folder, elsewhere)
    with _locked(folder, elsewhere):
        yield Run(folder, progress, provenance=Provenance(texts))


def _check_folder(folder: Path, elsewhere: str) -> None:
    """Create the folder. Raises InputError when that fails, or when the folder has files that are not a run's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
def _locked(folder: Path, elsewhere: str) -> Iterator[None]:
    """Keep a second process from writing the run. The system releases the lock when the process ends."""
    with (folder / layout.LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another process is working on {folder}. Wait for it, or {elsewhere}.") from error
        yield


def read_run(folder: str | Path) -> Run:
    """Open a run for reading. Raises InputError when ``folder`` holds none."""
    path = Path(folder)
    if not (path / layout.RUN).exists():
        known = [str(p.parent) for p in sorted(Path("runs").glob(f"*/{layout.RUN}"))]
        hint = f" Runs here: {', '.join(known)}." if known else " Make one with: cai run demo"
        raise InputError(f"no run in '{folder}'.{hint}")
    check_links(path)
    return Run(path)
