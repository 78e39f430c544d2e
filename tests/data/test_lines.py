from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from constitutional_ai.data import lines
from constitutional_ai.data.lines import read_items, read_json, read_lines, read_text
from constitutional_ai.errors import InputError
from constitutional_ai.records import Message


class Row(BaseModel):
    text: str | tuple[Message, ...]


def rows(path: Path) -> Any:
    return [(number, row.text) for number, row in read_lines(path, Row)]


def items(path: Path) -> Any:
    return list(read_items(path))


READERS = [read_text, read_json, items, rows]
ROW = json.dumps({"text": "a\u2028b"}, ensure_ascii=False).encode()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_is_read_with_or_without_a_byte_order_mark_also_compressed(tmp_path: Path, zipped: bool) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        data, path = mark + ROW + b"\r\n\n" + ROW, tmp_path / ("rows.jsonl.gz" if zipped else "rows.jsonl")
        path.write_bytes(gzip.compress(data) if zipped else data)
        assert rows(path) == [(1, "a\u2028b"), (3, "a\u2028b")]
        assert items(path) == [(1, {"text": "a\u2028b"}), (3, {"text": "a\u2028b"})]


def test_the_items_of_one_json_list_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(" [1,\n {}]")
    assert items(tmp_path / "list.json") == [(1, 1), (2, {})]


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_cannot_be_read_is_named_in_one_sentence(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"x" * 99)[:20])
    (tmp_path / "plain.gz").write_bytes(b"plain")
    for name, fault in [
        ("none", "no file '{}'."),
        (".", "'{}' is a folder."),
        ("latin", "{} is not UTF-8 text."),
        ("binary", "{} is not text: it holds NUL bytes."),
        ("torn.gz", "cannot read '{}': "),
        ("plain.gz", "cannot read '{}': "),
        ("a\0b", "cannot read '{}': "),
    ]:
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(fault.format(tmp_path / name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": "b', "not JSON (Unterminated string starting at at column 10). Correct or delete"),
        ("9" * 5_000, "not JSON ("),
        ("[" * 100_000, "not JSON ("),
        ('{"text": "\\ud800"}', "not JSON"),
        ("{}", "text: is missing"),
        ('{"text": "a", "text": "b"}', "not JSON (the key 'text' is written twice"),
        ('{"text": 1}', "text: must be a text"),
        (
            '{"text": [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "x"}]}',
            "text.1.role: must be",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW + b"\n\n" + line.encode() + b"\n")
    with pytest.raises(InputError) as caught:
        rows(path)
    assert str(caught.value).startswith(f"{path}:3: {fault}")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LEAST_LIMIT", 1000)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 10**6))
    with pytest.raises(InputError, match="it unpacks to more than 100 times its size"):
        rows(path)
    text = b"\n".join(b'{"text": "%x"}' % (7919**n) for n in range(500))
    path.write_bytes(gzip.compress(text))
    assert len(rows(path)) == 500


def test_a_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="it is a device, not a file"):
        rows(tmp_path / "rows.jsonl")
