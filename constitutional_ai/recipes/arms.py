"""Read the arms of a sweep: a recipe for every combination of the values that keys are given (``cai sweep``)."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.errors import InputError, shortened
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.runs import layout
from constitutional_ai.runs.remote_folder import is_remote

MOST = 1000
"""Maximum number of arms."""
SEED = "seed"
RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")
UNSAFE = re.compile(r"[^A-Za-z0-9_.=+-]")
LONGEST = 100
"""Characters of the longest name of an arm's folder."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One run of a sweep."""

    name: str
    """Name of its folder, from its values."""
    values: dict[str, str]
    """The values of the keys that differ between arms, as they were typed."""
    recipe: Recipe

    @property
    def folder(self) -> Path:
        return self.recipe.folder

    @property
    def setting(self) -> dict[str, str]:
        """Its values without the seed: arms of one setting are repetitions."""
        return {key: value for key, value in self.values.items() if key != SEED}


def sweep_arms(recipe: str, changes: Sequence[str]) -> tuple[Path, list[Arm]]:
    """Return the folder of a sweep and its arms, in the order of the keys; the last key varies fastest.

    ``changes`` are ``key=v1,v2``, ``key=0..4`` and ``key=value``; a comma within brackets or quotes is part of a value.
    All arms share a cache of calls in the folder, unless the recipe names one. Raises InputError if the folder is
    missing, there is only one arm or too many, or an arm's recipe is wrong.
    """
    typed: dict[str, list[str]] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"'{shortened(change)}' has no '='. Write key=v1,v2 or key=0..4.")
        typed[key] = values_of(change, value)
    folder = _folder(typed.pop("out", []))
    swept = {key: values for key, values in typed.items() if len(values) > 1}
    fixed = [f"{key}={values[0]}" for key, values in typed.items() if len(values) == 1]
    count = 1
    for values in swept.values():
        count *= len(values)
    if count > MOST:
        raise InputError(f"this sweep has {count} arms, more than {MOST}. Name fewer values.")
    if not swept:
        raise InputError(
            "no key has several values. Name some, for example revisions.rounds=1..4 or seed=0,1,2."
        )
    combinations = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    return folder, [_arm(recipe, fixed, folder, values) for values in combinations]


def values_of(change: str, text: str) -> list[str]:
    """Return the values of a key, without repetitions.

    >>> values_of("", "0..3,8"), values_of("", "[a,b],null")
    (['0', '1', '2', '3', '8'], ['[a,b]', 'null'])
    """
    values: list[str] = []
    for part in _parts(text):
        if span := RANGE.fullmatch(part):
            first, last = int(span[1]), int(span[2])
            if not 0 <= last - first < MOST:
                raise InputError(
                    f"'{shortened(change)}': {part} is no range of at most {MOST} numbers. Write 0..4."
                )
            values += map(str, range(first, last + 1))
        else:
            values.append(part)
    return list(dict.fromkeys(values))


def _parts(text: str) -> Iterator[str]:
    """Yield the parts of a text between its commas, but those in brackets or quotes."""
    start, depth, quote = 0, 0, ""
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and not depth:
            yield text[start:at].strip()
            start = at + 1
    yield text[start:].strip()


def _folder(named: Sequence[str]) -> Path:
    if len(named) != 1 or not named[0]:
        raise InputError("choose one folder for all arms: out=FOLDER")
    if is_remote(named[0]):
        raise InputError("a sweep has its arms on this machine: set out= to a folder.")
    folder = Path(named[0])
    if (folder / layout.RUN).exists():
        raise InputError(f"{folder} is a run. Name another folder for the arms with out=.")
    return folder


def _arm(recipe: str, fixed: Sequence[str], folder: Path, values: dict[str, str]) -> Arm:
    name = _name(values)
    own = [f"{key}={value}" for key, value in values.items()]
    out = f"out={json.dumps(str(folder / name))}"
    read = load_recipe(recipe, [*fixed, *own, out])
    if read.cache == "run":
        read = read.model_copy(update={"cache": str(folder / layout.CALLS)})
    return Arm(name, values, read)


def _name(values: dict[str, str]) -> str:
    """Return the name of an arm's folder; with a digest where a character had to be left out.

    >>> _name({"revisions.rounds": "2", "seed": "0"})
    'revisions.rounds=2+seed=0'
    """
    text = "+".join(f"{key}={value}" for key, value in values.items())
    safe = UNSAFE.sub("-", text)[:LONGEST]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
