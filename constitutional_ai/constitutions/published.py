"""Import constitutions that others published. None of them ships with the project: the user names a path.

* the paper's supplementary repository, its ``prompts/`` folder, or one of its two files: 16 pairs of a critique and a
  revision request, and 16 preference questions
* NVIDIA NeMo-Aligner's ``examples/nlp/cai`` folder, which has the paper's first file unchanged, and the questions as a
  numbered list between triple backticks
* Hugging Face llm-swarm's JSON: ``{"constitutions": [{"critic", "revision"}], "system_chat": […]}``
* plain text or a flat Markdown list, each line or item of which becomes a preference question (``plain_text.py``)

Texts are kept byte for byte, mistakes included. Only the markup that our prompts add again, and Markdown's, is removed.
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.constitutions.plain_text import refuse_marks, statements
from constitutional_ai.data.lines import read_json, read_text
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
    f"NeMo-Aligner's examples/nlp/cai folder or its {NEMO}; a text file with one sentence a line, or one flat "
    "Markdown list."
)
TABLES = {".csv", ".tsv", ".parquet", ".xlsx", ".xls", ".ods"}

Entry = dict[str, str]
"""The texts of a principle: some of critique, revision and preference."""


def import_constitution(source: Path) -> Constitution:
    """Return the constitution in a file or folder. Raises InputError when it is in none of the formats above."""
    if source.is_dir():
        folder = (source / "prompts" if (source / "prompts").is_dir() else source).resolve()
        files = [folder / name for name in (PAIRS, QUESTIONS, NEMO) if (folder / name).is_file()]
        if not files:
            raise InputError(f"{source} holds neither {PAIRS} nor {QUESTIONS} nor {NEMO}. {KNOWN}")
        name = folder.parent.name if folder.name == "prompts" else folder.name
    else:
        files, name = [source], source.stem
    read = [_entries(path) for path in files]
    description = " ".join(
        [f"Imported from {', '.join(path.name for path in files)}.", *[note for _, note in read if note]]
    )
    return _constitution(source, name, description, [entry for entries, _ in read for entry in entries])


def _entries(path: Path) -> tuple[list[Entry], str]:
    """Return the principles of a file, and a note on what was left out."""
    if TABLES & set(path.suffixes):
        raise InputError(
            f"{path}:1: a table. Which of its rows are principles is yours to decide: write their statements to a text "
            "file, one a line."
        )
    text = read_text(path, KNOWN)
    if path.suffix in {".yaml", ".yml"}:
        raise InputError(f"{path} is YAML, the format of our own constitutions. Type: cai check {path}")
    if path.suffix == ".json" or text.lstrip()[:1] in {"{", "["}:
        return _from_json(path, read_json(path, KNOWN))
    return _from_text(path, text), ""


def _from_json(path: Path, data: Any) -> tuple[list[Entry], str]:
    match data:
        case {"constitutions": list(pairs)}:
            chats = data.get("system_chat")
            left = len(chats) if isinstance(chats, list) else 0
            note = f"{left} few-shot dialogues ('system_chat') were not imported." if left else ""
            return [_swarm_pair(path, number, pair) for number, pair in enumerate(pairs)], note
        case [str(), *_]:
            return [{"preference": _listed(path, f"[{n}]", text)} for n, text in enumerate(data)], ""
        case dict() if data and all(isinstance(v, dict) and "edit_request" in v for v in data.values()):
            return [_paper_pair(path, key, pair) for key, pair in data.items()], ""
    raise InputError(f"{path}:1: JSON in no known format. {KNOWN}")


def _swarm_pair(path: Path, number: int, pair: Any) -> Entry:
    match pair:
        case {"critic": str(critique), "revision": str(revision)}:
            return {"critique": critique, "revision": revision}
    raise InputError(f"{path}: constitutions[{number}] must hold two texts, 'critic' and 'revision'.")


def _paper_pair(path: Path, key: str, pair: Any) -> Entry:
    match pair:
        case {"prompt": [str(critique)], "edit_request": str(revision)}:
            return {
                "name": key,
                "critique": _unframed(path, key, critique, CRITIQUE),
                "revision": _unframed(path, key, revision, REVISION),
            }
    raise InputError(f"{path}: '{key}' must hold 'prompt', a list of one text, and 'edit_request', a text.")


def _unframed(path: Path, key: str, text: str, frame: tuple[str, str]) -> str:
    before, after = frame
    if not (text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)):
        raise InputError(f"{path}: '{key}' must have its text between {before!r} and {after!r}.")
    return text[len(before) : -len(after)]


def _listed(path: Path, place: str, text: Any) -> str:
    """Return a question without the blank line and ``Options:`` that our prompts add around it (pitfall 16)."""
    if not isinstance(text, str):
        raise InputError(f"{path}: {place} is not a text. Every item must be one preference question.")
    question = text.removeprefix("\n").removesuffix(" Options:")
    if question.strip():
        refuse_marks(path, place, question.strip())
    return question


def _from_text(path: Path, text: str) -> list[Entry]:
    if "```CONSTITUTION" in text:  # NeMo-Aligner: the list is in the judge's system prompt
        listed = text.partition("```CONSTITUTION")[2].partition("```")[0]
        lines = re.findall(r"^[ \t]*\d+\.[ \t]+(\S.*)$", listed, flags=re.MULTILINE)
        return [{"preference": line.strip().removesuffix(" Options:")} for line in lines]
    return [{"preference": statement} for statement in statements(path, text)]


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
