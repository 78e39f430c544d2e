"""Read files that people wrote: text, YAML, JSON and JSON lines. Each error is one sentence with the file and the line.

All are UTF-8, or UTF-16 or UTF-32 with a byte order mark, and may be compressed with gzip. Lines end as any editor ends
them.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from constitutional_ai.data.yaml_text import YamlFault, parse_yaml
from constitutional_ai.errors import InputError, did_you_mean, first_fault, unique_keys

Row = TypeVar("Row", bound=BaseModel)
WIDE = {  # the mark of UTF-32 begins with that of UTF-16, so it is compared first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SURROGATE = re.compile(r"[\ud800-\udfff]")  # a lone one, which UTF-8 cannot encode
STANDARD = Path("-")
"""The name of standard input, which can be read once, and of standard output. A file of this name is ./-"""
GZIP = b"\x1f\x8b"
LEAST_LIMIT, MOST_RATIO = 64 * 2**20, 100
"""Bytes that a gzip file may always unpack to, and times its size that a larger one may; gzip itself reaches 1,000."""
BETWEEN_ITEMS = re.compile(r"[\s,]*")
LINE_END = re.compile(r"\r\n|\r|\n")  # not those of splitlines(): JSON strings may hold U+2028


def read_text(path: Path, hint: str = "", largest: int | None = None) -> str:
    """Return the text of a file.

    Raises InputError, which ends with ``hint``, when the file cannot be read, is not text, or holds more than
    ``largest`` bytes, packed or unpacked; no more than that is ever in memory.
    """
    try:
        text = _decoded(read_bytes(path, hint) if largest is None else _read_bounded(path, hint, largest))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text. {hint}".rstrip()) from error
    if "\0" in text:
        raise InputError(f"{path} is not text: it holds NUL bytes. {hint}".rstrip())
    return text


def read_bytes(path: Path, hint: str = "") -> bytes:
    """Return the bytes of a file, decompressed. Raises InputError, with ``hint``, when the file cannot be read."""
    with _errors_of(path, hint):
        data = sys.stdin.buffer.read() if path == STANDARD else path.read_bytes()
        return _unpacked(data) if path.suffix.lower() == ".gz" or data.startswith(GZIP) else data


def _read_bounded(path: Path, hint: str, largest: int) -> bytes:
    with _errors_of(path, hint), nullcontext(sys.stdin.buffer) if path == STANDARD else path.open("rb") as file:
        data = file.read(largest + 1)
        if len(data) <= largest and (path.suffix.lower() == ".gz" or data.startswith(GZIP)):
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(largest + 1)
    if len(data) > largest:
        raise InputError(f"{path} holds more than {largest / 1e6:.0f} MB of text. Split it, and name one part.")
    return data


@contextmanager
def _errors_of(path: Path, hint: str) -> Iterator[None]:
    """Raise InputError for what may go wrong in reading a file."""
    try:
        if path.is_block_device() or path.is_char_device():
            raise OSError(errno.EINVAL, "it is a device, not a file")
        yield
    except FileNotFoundError as error:
        raise InputError(f"no file '{path}'. {hint}".rstrip()) from error
    except IsADirectoryError as error:
        raise InputError(f"'{path}' is a folder. {hint}".rstrip()) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}.") from error


def _unpacked(data: bytes) -> bytes:
    """Return the content of a gzip file. Raises ValueError for a bomb, EOFError and OSError for a damaged file."""
    most = max(LEAST_LIMIT, MOST_RATIO * len(data))
    with gzip.open(io.BytesIO(data)) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(
            f"it unpacks to more than {MOST_RATIO} times its size; unpack it yourself if you trust it"
        )
    return content


def _decoded(data: bytes) -> str:
    """Return the text in the encoding that its byte order mark names, or else in UTF-8."""
    return data.decode(next((code for mark, code in WIDE.items() if data.startswith(mark)), "utf-8-sig"))


def find_yaml(name: str | Path, built_in: Path, what: str) -> Path:
    """Return ``name`` if it is a file, else the file ``name.yaml`` in ``built_in``. Raises InputError for neither."""
    if Path(name) == STANDARD:
        return STANDARD
    for path in (Path(name), built_in / f"{name}.yaml"):
        if path.is_file():
            return path
    known = [path.stem for path in built_in.glob("*.yaml")]
    raise InputError(f"no {what} '{name}': neither a file nor built in.{did_you_mean(str(name), known)}")


def read_yaml(path: Path, largest: int | None = None) -> tuple[Any, yaml.Node | None]:
    """Return the data of a YAML file, and its node tree for ``line_of``.

    Raises InputError if the file cannot be read, is not YAML, holds more than ``largest`` bytes, or has anchors that
    repeat themselves or one another without end.
    """
    try:
        return parse_yaml(read_text(path, largest=largest))
    except YamlFault as fault:
        where = f"{path}:{fault.line}" if fault.line else path
        raise InputError(f"{where}: {fault}.") from fault


def line_of(node: yaml.Node | None, place: Sequence[Any]) -> int:
    """Return the line (from 1) of the key or item at ``place``, or of its nearest ancestor that exists."""
    line = 0
    for step in place:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return line + 1


def read_json(path: Path, hint: str = "", largest: int | None = None) -> Any:
    """Return the data of a JSON file. Raises InputError if the file cannot be read or is not JSON."""
    return _parsed(read_text(path, hint, largest), path, hint)


def read_items(path: Path, hint: str = "") -> Iterator[tuple[int, Any]]:
    """Yield the data of each line of a JSONL file, or each item of a JSON list, with the line on which it begins.

    Raises InputError if the file cannot be read, or naming the line that is not JSON.
    """
    text = read_text(path, hint)
    if text.lstrip().startswith("["):
        yield from _list_items(text, _parsed(text, path, hint))
    else:
        for number, line, data in _lines(text, path):
            if "\\ud" in line.lower() and SURROGATE.search(json.dumps(data, ensure_ascii=False)):
                raise InputError(
                    f"{path}:{number}: a text holds half of a character (\\ud…). Correct this line."
                )
            yield number, data


def _list_items(text: str, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the ``items`` of the JSON list ``text``, each with its line."""
    decode, at, line = json.JSONDecoder().raw_decode, 0, 1
    opening = text.index("[") + 1
    for item in items:
        start = BETWEEN_ITEMS.match(text, at or opening).end()  # type: ignore[union-attr]  # matches anything
        line += text.count("\n", at, start)
        yield line, item
        at = decode(text, start)[1]
        line += text.count("\n", start, at)


def read_lines(path: Path, row_type: type[Row], hint: str = "") -> Iterator[tuple[int, Row]]:
    """Yield each line of a JSONL file as a ``row_type``, with its number from 1. Blank lines are skipped.

    Raises InputError if the file cannot be read, or naming the line and the field that are wrong.
    """
    for number, line, _ in _lines(read_text(path, hint), path):
        try:
            row = row_type.model_validate_json(line)
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {first_fault(error)}") from error
        yield number, row


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts as one line of text.

    >>> format_counts({"an empty turn": 2, "both replies are the same": 1})
    '2 × an empty turn, 1 × both replies are the same'
    """
    return ", ".join(f"{count} × {what}" for what, count in counts.items())


def _lines(text: str, path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yield the number, the text and the data of each line that is not blank."""
    for number, line in enumerate(LINE_END.split(text), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            why = _why_not_json(error)
            raise InputError(f"{path}:{number}: not JSON ({why}). Correct or delete this line.") from error
        yield number, line, data


def _why_not_json(error: ValueError | RecursionError) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    curly = error.doc[error.pos : error.pos + 1] in set("“”‘’")
    what = "a curly quotation mark instead of a straight one" if curly else error.msg
    return f"{what} at column {error.colno}"


def _parsed(text: str, path: Path, hint: str) -> Any:
    try:
        data = json.loads(text, object_pairs_hook=unique_keys)
        json.dumps(data, ensure_ascii=False).encode()  # raises at a lone surrogate, which UTF-8 cannot encode
        return data
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg}). Correct this line.") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, thousands of digits, or a key twice
        raise InputError(f"{path}: JSON that cannot be read ({error}). {hint}".rstrip()) from error
