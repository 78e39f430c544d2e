"""A folder in an object store, by fsspec: small files read and written whole, large ones copied.

Logins come from the environment and the files that each protocol's own library reads. An address holds none, so that
none is in a file of a run, an error or the title of a process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from constitutional_ai.errors import CaiError, InputError
from constitutional_ai.runs.disk_faults import FULL

PACKAGES = {"file": "fsspec", "gs": "gcsfs", "hf": "huggingface_hub", "s3": "s3fs"}
"""Schemes of addresses, and the package that fsspec needs for each."""
HOME = Path("runs")
"""The folder of the working folders of remote runs, below that in which the command is typed."""
MOST_BYTES = 2**26
"""Size of a file that is read whole."""


def is_remote(out: str) -> bool:
    """Return whether a run's ``out`` is an address rather than a path."""
    return "://" in out


def check_address(address: str) -> str:
    """Return an address without a slash at its end. Raises ValueError, whose message does not repeat the address.

    >>> check_address("s3://bucket/runs/mine/")
    's3://bucket/runs/mine'
    """
    scheme, _, path = address.partition("://")
    if scheme not in PACKAGES:
        raise ValueError(
            f"must be a folder, or an address that begins with {', '.join(map('{}://'.format, PACKAGES))}"
        )
    if re.search(r"[@?#\s]|::", path):
        raise ValueError(
            "must be an address without @, ?, # and ::, because logins in it would be written to files. Put them in "
            "the environment"
        )
    parts = path.rstrip("/").removeprefix("/" if scheme == "file" else "").split("/")
    if {"", ".", ".."} & set(parts):
        raise ValueError(
            f"must name a folder, for example {scheme}://{'/' if scheme == 'file' else ''}bucket/runs/mine"
        )
    return address.rstrip("/")


def working_folder(out: str) -> Path:
    """Return the folder of a run on this machine: for an address, ``runs/`` and its last part.

    >>> str(working_folder("s3://bucket/experiments/mine")), str(working_folder("runs/mine"))
    ('runs/mine', 'runs/mine')
    """
    return HOME / out.rstrip("/").rpartition("/")[2] if is_remote(out) else Path(out)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at an address that ``check_address`` has passed. Every method raises InputError."""

    address: str

    def below(self, *names: str) -> RemoteFolder:
        """Return a folder in this one."""
        return RemoteFolder("/".join((self.address, *names)))

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none. Only so much is read as a run's small files hold."""
        with self._naming_faults():
            with suppress(FileNotFoundError):
                return bytes(self._system.cat_file(self._path(name), start=0, end=MOST_BYTES))
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file: in an object store, whole or not at all."""
        with self._naming_faults():
            self._system.pipe_file(self._path(name), content)

    def put(self, name: str, file: Path) -> None:
        """Copy a file of this machine there."""
        with self._naming_faults():
            self._system.put_file(str(file), self._path(name))

    def get(self, name: str, file: Path) -> None:
        """Copy a file from there, and make the folders above it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._naming_faults():
            self._system.get_file(self._path(name), str(file))

    def files(self) -> list[str]:
        """Return the paths of all files in the folder and below it. None of them leads out of it."""
        with self._naming_faults(), suppress(FileNotFoundError):
            self._system.invalidate_cache()  # another machine may have written since
            return sorted(filter(None, map(self._name, self._system.find(self._path()))))
        return []

    def names(self) -> list[str]:
        """Return the names of the files and folders in the folder."""
        with self._naming_faults(), suppress(FileNotFoundError):
            self._system.invalidate_cache()
            return sorted(filter(None, map(self._name, self._system.ls(self._path(), detail=False))))
        return []

    def remove(self, name: str) -> None:
        """Delete a file, if there is one."""
        with self._naming_faults(), suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def _name(self, path: str) -> str:
        """Return a path from this folder. Raises InputError if it leads elsewhere, or would on this machine."""
        name = str(path).removeprefix(self._path()).strip("/")
        if ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
            raise InputError(f"{self.address} holds a file whose name leads out of it. Delete it there.")
        return name

    def _path(self, name: str = "") -> str:
        return f"{self._opened[1]}/{name}" if name else self._opened[1]

    @property
    def _system(self) -> Any:
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The file system of fsspec, and the path in it."""
        options = {"auto_mkdir": True} if self.address.startswith("file:") else {}
        with self._naming_faults():
            system, path = import_module("fsspec").url_to_fs(self.address, **options)
            return system, str(path).rstrip("/")

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        """Turn what goes wrong in a block into one sentence, which does not repeat what a library says."""
        try:
            yield
        except CaiError:
            raise
        except ImportError as error:
            scheme = self.address.partition(":")[0]
            raise InputError(
                f"{scheme}:// needs the package '{PACKAGES[scheme]}'. Type: pip install fsspec {PACKAGES[scheme]}"
            ) from error
        except Exception as error:  # every protocol's library has errors of its own
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise InputError(
                f"{self.address} cannot be used ({type(error).__name__}). Check the address, the network and the login "
                "in the environment, then type the same command."
            ) from error
