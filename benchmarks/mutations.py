"""Change a file as people, programs and disks do: seeded, so that a case can be made again from its number."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

HUGE = "<huge>"
"""Stands for a whole number of thousands of digits, which neither JSON's nor YAML's writers would write."""
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**9, 2**63, 1.5, 1e308, float("nan"), float("inf"), HUGE, "", " ", "\0", "\ud800"),
    *(
        "x" * 300,
        "x" * 10**6,
        "\x1b[2J\u202e",
        "../../x",
        "/dev/zero",
        "/proc/self/mem",
        "2001-99-99",
        "!!bool x",
    ),
    *([], {}, [[]], {"": None}, [None], ["a"] * 1000, {"role": "user", "content": 5}, "={}", "a\nb", "&a [*a]"),
)
BYTES = (
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b'"',
    b"{",
    b"[" * 5000,
    b"}",
    b":",
    b"\n",
    b"*a",
    b"&a ",
    b"9" * 5000,
)


def changed(text: bytes, kind: str, rng: random.Random) -> bytes:
    """Return a file's content with one to three changes. ``kind`` is its suffix: json, jsonl, yaml, csv."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.choice((_values, _values, _keys, _pieces, _pieces, _whole))
        text = change(text, kind, rng)
    return text


def _whole(text: bytes, kind: str, rng: random.Random) -> bytes:
    deep = b"[" * 3000 + b"]" * 3000
    bomb = b"a: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
        b"%c: &%c [%s]\n" % (n + 1, n + 1, b",".join([b"*%c" % n] * 9)) for n in range(97, 106)
    )
    utf16 = text.decode("utf-8", "replace").encode("utf-16")
    return rng.choice(
        (
            b"",
            b"\n",
            b"null",
            b"[]",
            b"{}",
            b"5",
            deep,
            b'{"a":' * 3000,
            bomb,
            utf16,
            text + text,
            text * 50,
            b"\x1f\x8b" + text,
        )
    )


def _pieces(text: bytes, kind: str, rng: random.Random) -> bytes:
    """Cut, double, or overwrite a piece."""
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.choice((1, 1, 3, 30, 1000)))
    new = rng.choice((b"", text[start:end] * 2, rng.choice(BYTES), bytes([rng.randrange(256)])))
    return text[:start] + new + text[end:]


def _values(text: bytes, kind: str, rng: random.Random) -> bytes:
    return _edited(text, kind, rng, lambda at, key: at.__setitem__(key, rng.choice(VALUES)))


def _keys(text: bytes, kind: str, rng: random.Random) -> bytes:
    """Delete, rename or repeat a key or an item."""
    twice = "\ue000"

    def edit(at: Any, key: Any) -> None:
        value = at.pop(key)
        match rng.randrange(3), at:
            case 1, dict():
                at[str(key) + rng.choice(("", "s", "\x1b", "x" * 10**5, "\0"))] = value
            case 2, dict():
                at |= {key: value, f"{key}{twice}": rng.choice(VALUES)}
            case 2, list():
                at += [value, value]

    return _edited(text, kind, rng, edit).replace(twice.encode(), b"").replace(b"\\ue000", b"")


def _edited(text: bytes, kind: str, rng: random.Random, edit: Any) -> bytes:
    """Return the text after an edit of one place in its data; unchanged if it is no data any more."""
    lines = text.split(b"\n") if kind == "jsonl" else [text]
    number = rng.randrange(len(lines))
    try:
        data = yaml.safe_load(lines[number]) if kind == "yaml" else json.loads(lines[number])
        places = list(islice(_places(data), 2000))  # aliases may multiply
        edit(*rng.choice(places))
        lines[number] = _written(data, kind)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, yaml.YAMLError, RecursionError):
        return _pieces(text, kind, rng)
    return b"\n".join(lines)


def _written(data: Any, kind: str) -> bytes:
    text = yaml.safe_dump(data, allow_unicode=False) if kind == "yaml" else json.dumps(data)
    return text.replace(f'"{HUGE}"', "9" * 5000).replace(HUGE, "9" * 5000).encode("utf-8", "surrogatepass")


def _places(data: Any) -> Any:
    """Yield every (container, key) in data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield data, key
        yield from _places(value)


def put(path: Path, content: bytes, rng: random.Random) -> None:
    """Write a mutant, or now and then something that is no file at all."""
    match rng.randrange(40):
        case 0:
            path.mkdir(parents=True)
        case 1:
            path.symlink_to(path.name)  # to itself
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            pass  # it is missing
        case _:
            path.write_bytes(content)
