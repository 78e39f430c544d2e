"""Read the traits of open character training (Maiya et al. 2025): JSON or JSON lines with a ``trait`` and questions.

A trait is what an assistant says of itself, in the first person. Our words around it ask which of two replies is that
assistant's. Its questions are prompts, not principles, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.entries import Entry, Imported, anchor
from constitutional_ai.errors import InputError

QUESTION = "Which of these replies is from an assistant that could truly say of itself: “{trait}”"


def is_trait(item: Any) -> bool:
    """Return whether an item of a file is a trait."""
    return isinstance(item, dict) and "trait" in item


def read_traits(path: Path, items: Iterable[tuple[int, Any]]) -> Imported:
    """Return a principle for each trait, given each item's line. Raises InputError naming a line without one."""
    entries: dict[str, Entry] = {}
    questions = 0
    for line, item in items:
        match item:
            case {"trait": str(trait)} if trait.strip():
                prompts = item.get("questions")
                questions += len(prompts) if isinstance(prompts, list) else 0
                text = QUESTION.replace("{trait}", trait.strip())
                entries.setdefault(text, {"preference": text, "source": anchor(path, line)})
            case _:
                raise InputError(f"{path}:{line}: must hold 'trait', a text.")
    return Imported(list(entries.values()), f"Left out: {questions} questions." if questions else "")
