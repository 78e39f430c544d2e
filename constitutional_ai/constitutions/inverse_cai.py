"""Read the principles that inverse-cai found in preferences (Findeis et al. 2024): its folder of results, or one file.

The weight of a principle is the share of the pairs on which it decides that it decides as people did, with one pair
each way added.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.constitution import LARGEST
from constitutional_ai.constitutions.entries import Entry, Imported, anchor
from constitutional_ai.constitutions.group_votes import agreement
from constitutional_ai.data.lines import read_json
from constitutional_ai.errors import InputError

FINAL, DISTILLED, VOTES = (
    "060_constitution.json",
    "030_distilled_principles_per_cluster.json",
    "041_votes_per_cluster.json",
)
ITEM = re.compile(r"\d+\.[ \t]+(\S.*)")


def results_folder(folder: Path) -> Path | None:
    """Return the folder with results of an experiment, which may be the folder ``results`` within it; else None."""
    return next((f for f in (folder, folder / "results") if (f / DISTILLED).is_file()), None)


def read_results(folder: Path) -> Imported:
    """Return the principles of an experiment: those of its constitution if it wrote one, else all it distilled.

    Raises InputError naming the file that cannot be read.
    """
    distilled = read_distilled(folder / DISTILLED, _json(folder / DISTILLED))
    if not (folder / FINAL).is_file():
        return distilled
    chosen = read_final(folder / FINAL, _json(folder / FINAL)).entries
    weights = {entry["preference"]: entry["weight"] for entry in distilled.entries}
    entries = [entry | {"weight": weights.get(entry["preference"], 1.0)} for entry in chosen]
    left = len(distilled.entries) - len(chosen)
    return Imported(entries, f"Left out: {left} that its constitution does not hold." if left > 0 else "")


def _json(path: Path) -> Any:
    return read_json(path, largest=LARGEST)


def read_final(path: Path, text: Any) -> Imported:
    """Return the principles of a constitution, which is one text with a numbered line for each."""
    lines = text.splitlines() if isinstance(text, str) else []
    entries: list[Entry] = []
    for number, line in enumerate(lines, start=1):
        if not (item := ITEM.fullmatch(line.strip())):
            raise InputError(f"{path}: line {number} of its text is no numbered principle.")
        entries.append({"preference": item[1], "source": anchor(path, None, str(number))})
    return Imported(entries)


def read_distilled(path: Path, principles: Any) -> Imported:
    """Return the principles of all clusters, weighted by the votes in the file beside it, if it is there."""
    beside = path.parent / VOTES
    votes = _json(beside) if beside.is_file() else {}
    entries = []
    for key, text in principles.items():
        if not isinstance(text, str):
            raise InputError(f"{path}: '{key}' is not a text.")
        entries.append(
            {"preference": text, "weight": _weight(beside, key, votes), "source": anchor(path, None, key)}
        )
    return Imported(entries)


def _weight(path: Path, key: str, votes: Any) -> float:
    if not votes:
        return 1.0
    match votes.get(key) if isinstance(votes, dict) else None:
        case {"for": int(agreed), "against": int(other)} if agreed >= 0 and other >= 0:
            return agreement(agreed, agreed + other)
    raise InputError(f"{path}: '{key}' must hold two numbers of votes, 'for' and 'against'.")
