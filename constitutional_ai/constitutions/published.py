"""Import constitutions that others published: the one door to all forms. None of them ships with the project: the user
names a path. A file is recognised by what it holds.

* the paper's supplementary repository, its ``prompts/`` folder, or one of its two files: 16 pairs of a critique and a
  revision request, and 16 preference questions
* NVIDIA NeMo-Aligner's ``examples/nlp/cai`` folder, which has the paper's first file unchanged, and the questions as a
  numbered list between triple backticks
* Hugging Face llm-swarm's JSON: ``{"constitutions": [{"critic", "revision"}], "system_chat": […]}``
* plain text or a flat Markdown list, each line or item of which becomes a preference question (``plain_text.py``)
* tables, such as Polis's exports (``statement_tables.py``, ``group_votes.py``); named definitions with weights
  (``definitions.py``);
  the results of inverse-cai (``inverse_cai.py``); OpenAI's propositions (``propositions.py``); traits (``traits.py``)

Texts are kept byte for byte, mistakes included; propositions and traits stand whole within words of ours. Only the
markup that our prompts add again, and Markdown's, is removed. Each principle keeps an anchor in its file.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitutional_ai.constitutions.constitution import LARGEST, LARGEST_YAML, Constitution
from constitutional_ai.constitutions.definitions import definition, is_definition
from constitutional_ai.constitutions.entries import Entry, Imported, anchor
from constitutional_ai.constitutions.inverse_cai import (
    read_distilled,
    read_final,
    read_results,
    results_folder,
)
from constitutional_ai.constitutions.plain_text import refuse_marks, statements
from constitutional_ai.constitutions.propositions import read_propositions
from constitutional_ai.constitutions.statement_tables import read_polis, read_table
from constitutional_ai.constitutions.traits import is_trait, read_traits
from constitutional_ai.data.lines import line_of, read_items, read_json, read_text, read_yaml
from constitutional_ai.errors import InputError, first_fault

CRITIQUE = ("\n\nCritiqueRequest: ", "\n\nCritique:")
REVISION = ("\n\nRevisionRequest: ", "\n\nRevision:")
PAIRS, QUESTIONS, NEMO = (
    "CritiqueRevisionInstructions.json",
    "RLMadisonInstructions.json",
    "sys_prompt_constitution",
)
KNOWN = (
    f"Known: the paper's repository or its {PAIRS} or {QUESTIONS}; llm-swarm's JSON with 'constitutions'; "
    f"NeMo-Aligner's examples/nlp/cai folder or its {NEMO}; a folder or table that Polis exported; a folder of "
    "inverse-cai's results; OpenAI's propositions; traits; definitions with names; CSV with a header; a text file with "
    "one sentence a line, or one flat Markdown list."
)
TABLES, SHEETS, YAML = {".csv", ".tsv"}, {".parquet", ".xlsx", ".xls", ".ods"}, {".yaml", ".yml"}
JSON_LINES = re.compile(r"\}[ \t]*\r?\n\s*\{")
"""Matches where a value ends and the next begins without a comma."""


def import_constitution(source: Path) -> Constitution:
    """Return the constitution in a file or folder. Raises InputError when it is in none of the forms above."""
    name, files = _files(source) if source.is_dir() else (source.stem, [source])
    read = [_read(path) for path in files]
    description = " ".join(
        [f"Imported from {', '.join(path.name for path in files)}.", *[note for _, note in read if note]]
    )
    return _constitution(source, name, description, [entry for entries, _ in read for entry in entries])


def _files(source: Path) -> tuple[str, list[Path]]:
    """Return the name of the constitution in a folder, and what to read: the paper's files, or a folder of another
    form."""
    folder = (source / "prompts" if (source / "prompts").is_dir() else source).resolve()
    if files := [folder / name for name in (PAIRS, QUESTIONS, NEMO) if (folder / name).is_file()]:
        return folder.parent.name if folder.name == "prompts" else folder.name, files
    if any((source / name).is_file() for name in ("comments.csv", "comment-groups.csv")):
        return source.resolve().name, [source]
    if results := results_folder(source):
        return source.resolve().name, [results]
    raise InputError(f"{source} holds neither {PAIRS} nor {QUESTIONS} nor {NEMO}. {KNOWN}")


def _read(path: Path) -> Imported:
    """Return the principles of a file, or of a folder with one export, and a note on what was left out."""
    if path.is_dir():
        return read_results(path) if results_folder(path) else read_polis(path)
    suffixes = set(map(str.lower, path.suffixes))
    if SHEETS & suffixes:
        raise InputError(f"{path}: a spreadsheet. Save it as CSV with a header, and import that.")
    if TABLES & suffixes:
        return read_table(path)
    if YAML & suffixes:
        return _from_yaml(path)
    text = read_text(path, KNOWN, LARGEST)
    if text.lstrip().startswith("{") and JSON_LINES.search(text):
        return _from_items(path)
    if path.suffix == ".json" or text.lstrip()[:1] in {"{", "["}:
        return _from_json(path, read_json(path, KNOWN))
    return Imported(_from_text(path, text))


def _from_yaml(path: Path) -> Imported:
    data, node = read_yaml(path, LARGEST_YAML)
    match data:
        case {"principles": list()}:
            raise InputError(f"{path} is one of our own constitutions. Type: cai check {path}")
        case {"simple_propositions": _}:
            return read_propositions(path, data, node)
        case list() if any(map(is_definition, data)):
            return Imported([definition(path, item, line_of(node, [n])) for n, item in enumerate(data)])
        case dict() if any(map(is_definition, data.values())):
            return Imported([definition(path, v, line_of(node, [k]), str(k)) for k, v in data.items()])
    raise InputError(f"{path}:1: YAML in no known format. Is it one of ours? Type: cai check {path} {KNOWN}")


def _from_items(path: Path) -> Imported:
    """Return the principles of JSON lines, or of a JSON list of objects."""
    items = list(read_items(path, KNOWN))
    if any(is_trait(item) for _, item in items):
        return read_traits(path, items)
    if any(is_definition(item) for _, item in items):
        return Imported([definition(path, item, line) for line, item in items])
    raise InputError(f"{path}:1: JSON in no known format. {KNOWN}")


def _from_json(path: Path, data: Any) -> Imported:
    match data:
        case {"constitutions": list(pairs)}:
            chats = data.get("system_chat")
            left = len(chats) if isinstance(chats, list) else 0
            note = f"{left} few-shot dialogues ('system_chat') were not imported." if left else ""
            return Imported([_swarm_pair(path, number, pair) for number, pair in enumerate(pairs)], note)
        case [str(), *_]:
            return Imported([_listed(path, n, text) for n, text in enumerate(data)])
        case [dict(), *_]:
            return _from_items(path)
        case dict() if data and all(isinstance(v, dict) and "edit_request" in v for v in data.values()):
            return Imported([_paper_pair(path, key, pair) for key, pair in data.items()])
        case dict() if any(map(is_definition, data.values())):
            return Imported([definition(path, value, None, key) for key, value in data.items()])
        case dict() if data and all(key.isdecimal() for key in data):
            return read_distilled(path, data)
        case str() if "\n" in data or data.startswith("1. "):
            return read_final(path, data)
    raise InputError(f"{path}:1: JSON in no known format. {KNOWN}")


def _swarm_pair(path: Path, number: int, pair: Any) -> Entry:
    match pair:
        case {"critic": str(critique), "revision": str(revision)}:
            source = anchor(path, None, f"constitutions[{number}]")
            return {"critique": critique, "revision": revision, "source": source}
    raise InputError(f"{path}: constitutions[{number}] must hold two texts, 'critic' and 'revision'.")


def _paper_pair(path: Path, key: str, pair: Any) -> Entry:
    match pair:
        case {"prompt": [str(critique)], "edit_request": str(revision)}:
            return {
                "name": key,
                "critique": _unframed(path, key, critique, CRITIQUE),
                "revision": _unframed(path, key, revision, REVISION),
                "source": anchor(path, None, key or None),
            }
    raise InputError(f"{path}: '{key}' must hold 'prompt', a list of one text, and 'edit_request', a text.")


def _unframed(path: Path, key: str, text: str, frame: tuple[str, str]) -> str:
    before, after = frame
    if not (text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)):
        raise InputError(f"{path}: '{key}' must have its text between {before!r} and {after!r}.")
    return text[len(before) : -len(after)]


def _listed(path: Path, number: int, text: Any) -> Entry:
    """Return a question without the blank line and ``Options:`` that our prompts add around it (pitfall 16)."""
    place = f"[{number}]"
    if not isinstance(text, str):
        raise InputError(f"{path}: {place} is not a text. Every item must be one preference question.")
    question = text.removeprefix("\n").removesuffix(" Options:")
    if question.strip():
        refuse_marks(path, place, question.strip())
    return {"preference": question, "source": anchor(path, None, place)}


def _from_text(path: Path, text: str) -> list[Entry]:
    if "```CONSTITUTION" in text:  # NeMo-Aligner: the list is in the judge's system prompt
        before, _, after = text.partition("```CONSTITUTION")
        first, listed = before.count("\n") + 1, after.partition("```")[0]
        items = re.finditer(r"^[ \t]*\d+\.[ \t]+(\S.*)$", listed, flags=re.MULTILINE)
        return [
            {
                "preference": item[1].strip().removesuffix(" Options:"),
                "source": anchor(path, first + listed.count("\n", 0, item.start(1))),
            }
            for item in items
        ]
    return statements(path, text)


def _constitution(source: Path, name: str, description: str, entries: list[Entry]) -> Constitution:
    if not entries:
        raise InputError(f"{source} holds no principle. {KNOWN}")
    numbers = {"revision": count(), "preference": count()}
    sides = ["revision" if "revision" in entry else "preference" for entry in entries]
    named = [{"name": f"{side}{next(numbers[side])}"} for side in sides]
    principles = [name | entry for name, entry in zip(named, entries, strict=True)]
    try:
        data = {"name": name, "description": description, "principles": principles}
        return Constitution.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {first_fault(error)}") from error
