"""A label server in a process of its own, which a test may kill: ``python label_process.py FOLDER PORT``.

Its models write hostile text word by word, as slowly as a person reads.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]


class LabelProcess:
    """The server of the study in a folder, at one port for ever."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [sys.executable, str(Path(__file__)), str(self.folder), str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{self.port}/", timeout=1)
            except URLError as error:
                if getattr(error, "code", None) == 401:
                    return
            time.sleep(0.1)
        raise TimeoutError("the label server does not answer")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def link(self, token: str) -> str:
        return f"http://127.0.0.1:{self.port}/{token}/"


def main(folder: str, port: str) -> None:
    from constitutional_ai.label import label_server
    from constitutional_ai.label.study import Study
    from tests.label.study_fixtures import Slow
    from tests.report.conftest import HOSTILE

    @contextmanager
    def slow(name: str, **_: Any) -> Iterator[Slow]:
        words = " ".join(f"word{n}" for n in range(12))
        yield Slow(lambda context: f"{HOSTILE} {name} to message {context.count('Human:')}: {words}")

    label_server.loaded = slow  # type: ignore[assignment]
    label_server.serve_study(Study(Path(folder)), "127.0.0.1", int(port), print)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(*sys.argv[1:])
