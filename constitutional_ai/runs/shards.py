"""Make a stage in shards: each a run directory of its own, with the items whose ids fall into it by a hash.

::

    runs/demo/shards/03-of-16/
      run.json  recipe.yaml  constitution.yaml  calls.sqlite
      01-responses -> ../../../01-responses       earlier stages are links to those of the whole run
      02-revisions/  records.jsonl  items.jsonl  counts.json  stage.json

Nothing is written outside of a shard's folder, so shards need no lock in common, and no SQLite file on a shared disk.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from constitutional_ai.errors import InputError, shortened
from constitutional_ai.runs import layout
from constitutional_ai.runs.durable import discard
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.seeding import seed_of

Item = TypeVar("Item")
MOST = 4096
"""How many shards a stage may have."""


class ShardItem(NamedTuple):
    """An item of a shard."""

    place: int
    """Its place among the items of all shards, from 0."""
    id: str


@dataclass(frozen=True, order=True)
class Shard:
    """Part ``index``, from 1, of the ``of`` parts of a stage."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that ``3/16`` names. Raises InputError.

        >>> Shard.parse("3/16").name
        '03-of-16'
        """
        numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not numbers or not 1 <= int(numbers[1]) <= int(numbers[2]) <= MOST:
            raise InputError(
                f"'{shortened(text)}' names no shard. Write I/N with I from 1 to N, for example --shard 3/16; N is at "
                f"most {MOST}."
            )
        return cls(int(numbers[1]), int(numbers[2]))

    @classmethod
    def all_of(cls, count: int) -> list[Shard]:
        """Return the shards of ``count``."""
        return [cls(index, count) for index in range(1, count + 1)]

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.index:0{len(str(self.of))}}-of-{self.of}"

    def folder(self, run: Path) -> Path:
        """Return its folder in the folder of the whole run."""
        return run / layout.SHARDS / self.name

    def holds(self, name: str) -> bool:
        """Return whether the record of that id belongs to this shard: the same on every machine."""
        return seed_of("shard", name) % self.of == self.index - 1


class Part:
    """The items of a stage that one shard makes."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._items: list[ShardItem] = []
        self.total = 0
        """Number of items of all shards."""

    def of(self, items: Mapping[str, Item]) -> Mapping[str, Item]:
        """Return the shard's own of the items of a pass, and note their places."""
        own = [ShardItem(n, name) for n, name in enumerate(items, self.total) if self._shard.holds(name)]
        self._items += own
        self.total += len(items)
        return {item.id: items[item.id] for item in own}

    def write(self, folder: Path) -> None:
        """Write ``items.jsonl`` to the folder of the shard's stage."""
        write_rows(folder / layout.ITEMS, ShardItem, self._items)


def shards_of(run: Path, stage: str) -> list[Shard]:
    """Return the shards of a stage that were begun and are not merged. Raises InputError if their numbers differ."""
    present = [shard for shard in _folders(run) if (shard.folder(run) / stage).is_dir()]
    present = [shard for shard in present if not (shard.folder(run) / stage).is_symlink()]
    counts = sorted({shard.of for shard in present})
    if len(counts) > 1:
        raise InputError(
            f"{stage} was begun in {' and in '.join(map(str, counts))} shards. Delete the folders of all but one "
            f"number in {run / layout.SHARDS}."
        )
    return sorted(present)


def _folders(run: Path) -> Iterator[Shard]:
    """Yield the shards that have folders in a run. Raises InputError for a link, which may lead anywhere."""
    home = run / layout.SHARDS
    for path in home.iterdir() if home.is_dir() else ():
        shard = named(path.name)
        if shard and (home.is_symlink() or path.is_symlink()):
            raise InputError(f"{path} is a link, or in one. Put the folder itself in its place.")
        if shard:
            yield shard


def named(name: str) -> Shard | None:
    """Return the shard whose folder has that name."""
    with suppress(InputError):
        shard = Shard.parse("/".join(name.split("-of-")))
        return shard if shard.name == name else None
    return None


def discard_shards(run: Path, stage: str) -> None:
    """Delete what the shards of a stage have made. Raises InputError if one of them is being made."""
    shards = shards_of(run, stage)
    for shard in shards:
        if is_locked(shard.folder(run) / layout.LOCK):
            raise InputError(f"another process is making shard {shard} of {stage}. Wait for it, or stop it.")
    for shard in shards:
        discard(shard.folder(run) / stage)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a run's folder."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
