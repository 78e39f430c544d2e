"""Reads files that people wrote: text, JSON and JSON lines, each fault named with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from constitutional_ai.errors import InputError


def read_text(path: Path, hint: str = "") -> str:
    """Return the text of a UTF-8 file, without its byte order mark.

    Raises InputError, which ends with ``hint``, when the path cannot be read or holds no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"no file or folder '{path}'. {hint}".rstrip()) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text. {hint}".rstrip()) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"'{path}' cannot be read: {error}") from error
    if "\0" in text:
        raise InputError(f"{path} is no text: it holds NUL bytes. {hint}".rstrip())
    return text


def read_json(path: Path, hint: str = "") -> Any:
    """Return what a JSON file holds. Raises InputError as ``read_text`` does, and for what is not JSON."""
    text = read_text(path, hint)
    try:
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False).encode()  # raises at half an emoji, which no file or model takes
        return data
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg}). Is the file whole?") from error
    except (RecursionError, ValueError) as error:  # also nested too deep, or a number of thousands of digits
        raise InputError(f"{path}: JSON that cannot be read ({error}). {hint}".rstrip()) from error


def format_counts(counts: Mapping[str, int]) -> str:
    """``2 × an empty turn, 1 × both replies are the same``."""
    return ", ".join(f"{count} × {what}" for what, count in counts.items())


def json_lines(path: Path) -> Iterable[tuple[int, str]]:
    """Numbered lines that are not blank. Raises InputError when the file is missing, no text, or torn."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"no file '{path}'. Name a JSONL file, or 'built-in'.") from error
    except IsADirectoryError as error:
        raise InputError(f"'{path}' is a folder. Name a JSONL file in it.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text.") from error
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}:{number}: not JSON ({error.msg} at column {error.colno}). "
                "Is the line torn? Mend or delete it."
            ) from error
        yield number, line
