"""Work in processes that are killed: before a change on the disk, in the middle of a line, or after a time."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from constitutional_ai.runs.rows import RowWriter

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
"""Events of Python's audit by which files appear and disappear. A file that is opened for writing is another."""


class Kill(NamedTuple):
    """When a process is killed: all that are given count."""

    change: int | None = None
    """The change on the disk that it does not live to make, counted from 1."""
    line: int | None = None
    """While this row is half written, counted from 1."""
    seconds: float | None = None
    """The time that it lives."""


def random_kill(random: Random, *, changes: int, lines: int, seconds: float | None = None) -> Kill:
    """Return a kill of a random kind, at a random moment up to the given one. Only those by time are not repeatable."""
    kinds = [Kill(change=random.randint(1, changes)), Kill(line=random.randint(1, lines))]
    if seconds is not None:
        kinds.append(Kill(seconds=random.uniform(0, seconds)))
    return random.choice(kinds)


def finishes(work: Callable[[], object], root: Path, log: Path, kill: Kill | None = None) -> bool:
    """Return whether ``work`` ends in a process of its own before it is killed; ``root`` is where changes count.

    What it prints goes to ``log``. Raises AssertionError with that if the work fails.
    """
    kill = kill or Kill()
    process = os.fork()
    if not process:
        _work(work, root, log, kill)
    end = time.monotonic() + (kill.seconds if kill.seconds is not None else 1e9)
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
            break
        time.sleep(0.002)
    if os.WIFSIGNALED(ended[1]):
        assert os.WTERMSIG(ended[1]) == signal.SIGKILL, log.read_text()
        return False
    assert ended[1] == 0, log.read_text()
    return True


def _work(work: Callable[[], object], root: Path, log: Path, kill: Kill) -> None:
    """Do the work in this process, which ends with it."""
    status = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if kill.change:
            sys.addaudithook(killer(str(root), kill.change))
        if kill.line:
            tear_line(kill.line)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killer(root: str, change: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return a hook that kills this process before a change below ``root``."""
    left = change

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(arguments[0]).startswith(root):
            left -= 1
            if not left:
                die()

    return hook


def tear_line(number: int) -> None:
    """Make this process die while it appends a row, with half of it written."""
    left = number

    def append(writer: RowWriter[Any], row: Any) -> int:
        nonlocal left
        left -= 1
        line = writer._dump(row) + b"\n"
        if not left:
            writer._file.write(line[: len(line) // 2])
            die()
        return appended(writer, row)

    appended = RowWriter.append
    RowWriter.append = append  # type: ignore[method-assign]
