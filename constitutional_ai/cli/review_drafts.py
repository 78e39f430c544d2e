"""Review the drafts of a file in the terminal, one by one: ``cai constitution review``."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from constitutional_ai.cli.app import echo
from constitutional_ai.constitutions.draft_file import DraftFile, accepted, edited, read_draft_file, to_edit
from constitutional_ai.errors import InputError

KEYS = {"a": "accept", "e": "edit", "r": "reject", "s": "skip", "q": "quit"}
PROMPT = ", ".join(f"{word} ({key})" for key, word in KEYS.items())
WIDTH = 100


def review_drafts(path: Path) -> Counter[str]:
    """Show each draft with its clause and ask what becomes of it; return the decisions, and how many are ``left``.

    The file is written after each decision, so that a review that was stopped continues. Raises InputError without a
    terminal, for a file that cannot be changed, or if another program changes it meanwhile.
    """
    if not is_terminal():
        raise InputError(f"a review asks for keys. Type it in a terminal, or edit {path} by hand.")
    file, done = read_draft_file(path), Counter[str]()
    groups = file.groups()
    for number, group in enumerate(groups, start=1):
        waiting = [place for place in group if file.pieces[place].is_open]
        if not waiting:
            continue
        echo(f"\nClause {number} of {len(groups)}")
        _show_clause(file, group)
        for place in group:
            _show(file, place, group)
        for place in waiting:
            file, decision = _decide(file, place, group)
            if decision == "quit":
                return _with_left(done, file)
            done[decision] += 1
    return _with_left(done, file)


def is_terminal() -> bool:
    """Return whether a person can read and type here."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _with_left(done: Counter[str], file: DraftFile) -> Counter[str]:
    return done + Counter(left=sum(piece.is_open for piece in file.pieces))


def _decide(file: DraftFile, place: int, group: Sequence[int]) -> tuple[DraftFile, str]:
    """Ask for keys until one decides about a draft; return the file after it, which is written, and the decision."""
    while True:
        echo(f"{group.index(place) + 1} of {len(group)}: {PROMPT}? ", nl=False)
        decision = _key()
        echo(decision)
        try:
            match decision:
                case "accept":
                    return _saved(
                        file, file.with_principle(place, accepted(file.pieces[place].principle))
                    ), decision
                case "reject":
                    return _saved(file, file.without(place)), decision
                case "skip" | "quit":
                    return file, decision
                case "edit":
                    file = _edit(file, place)
                    _show(file, place, group)
        except InputError as error:
            echo(f"  {' '.join(str(error).split())}")


def _key() -> str:
    """Return what the next key means; "" if nothing. The end of the input means to quit."""
    try:
        key = click.getchar()
    except EOFError:
        key = ""
    return KEYS.get(key.lower(), "") if key else "quit"


def _saved(before: DraftFile, after: DraftFile) -> DraftFile:
    after.save_after(before)
    return after


def _edit(file: DraftFile, place: int) -> DraftFile:
    """Let the person edit a draft in their editor. It stays a draft until it is accepted."""
    old = file.pieces[place].principle
    text = click.edit(to_edit(old), extension=".yaml")
    if text is None or (new := edited(old, text)) == old:
        return file
    return _saved(file, file.with_principle(place, new))


# Texts are a model's: they are indented, so that none can look like a question or an answer of this program.


def _show_clause(file: DraftFile, group: Sequence[int]) -> None:
    first = file.pieces[group[0]]
    source = first.principle.source
    label = f"{source.document}: {source.clause or 'line ' + str(source.line)}" if source else "no anchor"
    echo(textwrap.fill(first.clause or label, WIDTH, initial_indent="  ", subsequent_indent="  "))


def _show(file: DraftFile, place: int, group: Sequence[int]) -> None:
    piece = file.pieces[place]
    state = "" if piece.is_open else "  (rejected)" if piece.rejected else "  (accepted)"
    echo(f"\n  {group.index(place) + 1} of {len(group)}: {' '.join(piece.principle.name.split())}{state}")
    for side, text in piece.principle.texts.items():
        indent = f"    {side}: "
        echo(textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=indent, subsequent_indent="      "))
    if not piece.principle.texts:
        echo("    (empty: edit it, or reject it)")
