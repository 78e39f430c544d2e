"""Change one principle of a file of drafts at a time, and leave all else of the file as it stands, comments too.

The file is cut into the lines of each principle and what stands before them. Each piece must mean by itself what it
means in the whole, which is checked once; then a change to one changes no other.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from constitutional_ai.constitutions.constitution import (
    DRAFTS,
    LARGEST_YAML,
    Principle,
    dumped,
    load_constitution,
)
from constitutional_ai.data.lines import read_text
from constitutional_ai.data.yaml_text import YamlFault, parse_yaml
from constitutional_ai.errors import InputError, first_fault
from constitutional_ai.runs.rows import write_atomically


class Piece(NamedTuple):
    """A principle of the file."""

    before: str
    """The comments and blank lines above it."""
    block: str
    """Its own lines; empty once it is rejected."""
    principle: Principle
    rejected: bool = False

    @property
    def clause(self) -> str:
        """The comment above it, in one line; empty if there is none."""
        lines = [line.strip() for line in self.before.splitlines()]
        return " ".join(line.lstrip("#").strip() for line in lines if line.startswith("#"))

    @property
    def is_open(self) -> bool:
        """Whether it is still a draft."""
        return self.principle.draft and not self.rejected


@dataclass(frozen=True)
class DraftFile:
    """A file of drafts in pieces."""

    path: Path
    head: str
    """All lines before the first principle and its comment."""
    pieces: tuple[Piece, ...]
    tail: str

    @property
    def text(self) -> str:
        return "".join([self.head, *[piece.before + piece.block for piece in self.pieces], self.tail])

    def groups(self) -> list[list[int]]:
        """Return the places of the principles of each clause: a comment begins a new one."""
        groups: list[list[int]] = []
        for place, piece in enumerate(self.pieces):
            if piece.clause or not groups:
                groups.append([])
            groups[-1].append(place)
        return groups

    def with_principle(self, place: int, principle: Principle) -> DraftFile:
        """Return the file with another principle at a place. Raises InputError if its name is another's."""
        others = [
            piece.principle.name for at, piece in enumerate(self.pieces) if at != place and not piece.rejected
        ]
        if principle.name in others:
            raise InputError(f"another principle is named '{principle.name}'. Choose another name.")
        old = self.pieces[place]
        indent = old.block[: len(old.block) - len(old.block.lstrip())]
        block = textwrap.indent(dumped([_written(principle)]), indent)
        return self._with(place, Piece(old.before, block, principle))

    def without(self, place: int) -> DraftFile:
        """Return the file without a principle. Raises InputError if it is the only one: a file must hold one."""
        if sum(not piece.rejected for piece in self.pieces) == 1:
            raise InputError(f"it is the only principle that is left. Keep it, or delete {self.path}.")
        return self._with(place, self.pieces[place]._replace(block="", rejected=True))

    def save_after(self, before: DraftFile) -> None:
        """Write the file, whole or not at all. Raises InputError if it is no longer what it was ``before``."""
        if self.path.read_bytes() != before.text.encode():
            raise InputError(
                f"{self.path} was changed by another program. Type the same command to read it again."
            )
        write_atomically(self.path, self.text)

    def _with(self, place: int, piece: Piece) -> DraftFile:
        return replace(self, pieces=(*self.pieces[:place], piece, *self.pieces[place + 1 :]))


def read_draft_file(path: Path) -> DraftFile:
    """Read a file of drafts. Raises InputError if it is none, or if its principles cannot be changed one by one."""
    if not path.is_file():
        raise InputError(f"no file '{path}'. cai constitution draft DOCUMENT --out {path} writes one.")
    principles = load_constitution(path, drafts=True).principles
    text = read_text(path, largest=LARGEST_YAML)
    lines = text.splitlines(keepends=True)
    starts = [node.start_mark.line for node in _items(parse_yaml(text)[1])]
    if text.encode() != path.read_bytes() or len(starts) != len(principles):
        raise _by_hand(path)
    pieces: list[Piece] = []
    end, head = 0, ""
    for start, until, principle in zip(starts, [*starts[1:], len(lines)], principles, strict=True):
        if not pieces:
            end = _end_of_block(lines, 0, start)  # the comment of the first clause is no part of the head
            head = "".join(lines[:end])
        before = "".join(lines[end:start])
        end = _end_of_block(lines, start, until)
        block = "".join(lines[start:end])
        if _parsed(block) != [principle]:
            raise _by_hand(path)
        pieces.append(Piece(before, block if block.endswith("\n") else f"{block}\n", principle))
    tail = "".join(lines[end:])
    return DraftFile(path, head, tuple(pieces), tail)


def edited(principle: Principle, text: str) -> Principle:
    """Return the draft that a text of YAML describes. Raises InputError that says what is wrong with it."""
    try:
        data: Any = parse_yaml(text)[0]
        if not isinstance(data, dict):
            raise InputError("it holds no principle: it must have 'name:' and texts.")
        return Principle.model_validate({**data, "draft": True}, context=DRAFTS)
    except YamlFault as fault:
        raise InputError(f"line {fault.line}: {fault}." if fault.line else f"{fault}.") from fault
    except ValidationError as error:
        raise InputError(str(first_fault(error))) from error


def accepted(principle: Principle) -> Principle:
    """Return the principle, no longer a draft. Raises InputError if it lacks what a principle must have."""
    try:
        return Principle.model_validate(_written(principle) | {"draft": False})
    except ValidationError as error:
        raise InputError(f"it {first_fault(error).message.removeprefix('Value error, ')}") from error


def to_edit(principle: Principle) -> str:
    """Return a principle as YAML for an editor, without the mark of a draft."""
    return dumped({key: value for key, value in _written(principle).items() if key != "draft"})


def _written(principle: Principle) -> dict[str, Any]:
    return principle.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((list(value.value) for key, value in pairs if key.value == "principles"), [])


def _end_of_block(lines: list[str], start: int, until: int) -> int:
    """Return the end of the lines from ``start`` without the comments and blank lines before ``until``."""
    while until > start and (not lines[until - 1].strip() or lines[until - 1].lstrip().startswith("#")):
        until -= 1
    return until


def _parsed(block: str) -> list[Principle] | None:
    """Return the principles that some lines hold by themselves; None if they hold anything else."""
    try:
        data = parse_yaml(textwrap.dedent(block))[0]
        return [Principle.model_validate(item, context=DRAFTS) for item in data]
    except (YamlFault, ValidationError, TypeError):
        return None


def _by_hand(path: Path) -> InputError:
    return InputError(f"{path} is not in the form that cai constitution draft writes. Edit it by hand.")
