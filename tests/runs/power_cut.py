"""A model of a disk that loses in a power cut what was not synced: contents, names and deletions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest


class Loss(NamedTuple):
    """What a file system does with what was not synced."""

    names: bool
    """Whether it loses names: new, changed and deleted ones. A journal may keep names of lost contents."""
    zeros: bool
    """Whether it leaves zeros in place of lost contents. Others leave shorter files."""


LOSSES = [Loss(names, zeros) for names in (True, False) for zeros in (True, False)]


class Node(NamedTuple):
    """A name in a folder: a file or a folder by its number, and the size of a file."""

    number: int
    is_folder: bool
    size: int


class Disk:
    """What is on the disk below a folder: each file and folder as it was when it was synced last."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, Node]] = {}
        self._held: list[int] = []
        """Descriptors that keep the numbers of deleted files from being given to new ones."""

    def sync(self, descriptor: int) -> None:
        """Note what ``os.fsync`` brings to the disk."""
        status = os.fstat(descriptor)
        self._held.append(os.dup(descriptor))
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = names_in(f"/proc/self/fd/{descriptor}")
        else:
            with Path(f"/proc/self/fd/{descriptor}").open("rb") as file:
                self._contents[status.st_ino] = file.read()

    def after_a_cut(self, loss: Loss) -> dict[str, bytes | None]:
        """Return what is there after a power cut now: contents by path; None for a folder."""
        tree: dict[str, bytes | None] = {}
        self._add(tree, self._root, self._root.stat().st_ino, "", loss)
        return tree

    def _add(
        self, tree: dict[str, bytes | None], now: Path | None, number: int, prefix: str, loss: Loss
    ) -> None:
        known = self._names.get(number, {}) if loss.names else names_in(now or self._root)
        for name, node in known.items():
            if node.is_folder:
                tree[prefix + name] = None
                self._add(tree, now / name if now else None, node.number, f"{prefix}{name}/", loss)
            else:
                synced = self._contents.get(node.number, b"")
                lost = max(0, node.size - len(synced)) if loss.zeros else 0
                tree[prefix + name] = synced + b"\0" * lost

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)


def names_in(folder: str | Path) -> dict[str, Node]:
    with os.scandir(folder) as entries:
        return {e.name: Node(e.stat().st_ino, e.is_dir(), e.stat().st_size) for e in entries}


def write_tree(folder: Path, tree: dict[str, bytes | None]) -> None:
    """Write what is there after a power cut to a new folder."""
    folder.mkdir()
    for name, content in tree.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


@contextmanager
def watched(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Disk, list[dict[str, bytes | None]]]]:
    """Yield the disk, and a list that gets what a cut would leave before and after every sync of the block."""
    disk, cuts = Disk(root), list[dict[str, bytes | None]]()

    def look() -> None:
        for loss in LOSSES:
            if (tree := disk.after_a_cut(loss)) not in cuts:
                cuts.append(tree)

    def fsync(descriptor: int) -> None:
        look()
        disk.sync(descriptor)
        look()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield disk, cuts
    disk.close()


def no_sync(_: int) -> None:
    """Stand for ``os.fsync``, which takes milliseconds."""
