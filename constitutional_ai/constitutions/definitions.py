"""Read lists of named definitions with weights: JSON or YAML, or Markdown such as ``- **Honesty** (0.3): Be honest.``

The definition is the preference question, the name is the principle's, and the weight is its chance of being drawn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.constitutions.entries import Entry, anchor
from constitutional_ai.errors import InputError

NAMES = ("name", "title", "label", "value")
DEFINITIONS = ("definition", "description", "statement", "text")
MARKDOWN = re.compile(
    r"(?:\*\*|__)(?P<name>[^*_:(]{1,80}?)\s*(?P<inner>\(\s*[\d.]+\s*%?\s*\))?(?P<colon>:)?(?:\*\*|__)"
    r"\s*(?P<outer>\(\s*[\d.]+\s*%?\s*\))?\s*(?(colon)|[:–—-])\s+(?P<text>\S.*)"
)


def is_definition(item: Any) -> bool:
    """Return whether an item of a file has a definition."""
    return isinstance(item, dict) and any(key in item for key in DEFINITIONS)


def definition(path: Path, item: Any, line: int | None = None, name: str | None = None) -> Entry:
    """Return the principle of an item with a definition; ``name`` is its key, where it has one.

    Raises InputError if the item lacks a name or a text, or its weight is no number above 0.
    """
    item = item if isinstance(item, dict) else {}
    texts = {key: value for key, value in item.items() if isinstance(value, str)}
    name = name or next((texts[key] for key in NAMES if texts.get(key)), None)
    text = next((texts[key] for key in DEFINITIONS if texts.get(key)), None)
    place = f"{path}:{line}" if line else f"{path}"
    if name is None or text is None:
        raise InputError(
            f"{place}: '{name or 'an item'}' must hold two texts, '{NAMES[0]}' and '{DEFINITIONS[0]}'."
        )
    weight = item.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1e12:
        raise InputError(f"{place}: '{name}': weight must be a number above 0.")
    return {"name": name, "preference": text, "weight": weight, "source": anchor(path, line, name)}


def definitions_of_list(path: Path, items: Sequence[tuple[int, str]]) -> list[Entry] | None:
    """Return the principles of a Markdown list, given each item's line and text; None unless all are definitions.

    Raises InputError for a weight that is no number above 0.
    """
    matches = [(line, MARKDOWN.fullmatch(text)) for line, text in items]
    if not all(match for _, match in matches):
        return None
    return [
        definition(
            path,
            {"definition": match["text"], "weight": _weight(path, line, match["inner"] or match["outer"])},
            line,
            match["name"],
        )
        for line, match in matches
        if match
    ]


def _weight(path: Path, line: int, text: str | None) -> float:
    if text is None:
        return 1.0
    try:
        return float(text.strip("() %"))
    except ValueError:
        raise InputError(f"{path}:{line}: {text[:20]!r} is no weight. Write one number.") from None
