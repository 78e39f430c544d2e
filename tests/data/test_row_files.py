from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.pairs import load_pairs
from constitutional_ai.data.row_files import read_rows
from constitutional_ai.errors import InputError

ROWS: list[dict[str, Any]] = [
    {"prompt": "“Tea”, or\nnot?", "chosen": "Yes; please.", "rejected": "N\u2028o"},
    {"prompt": "Naïve 茶?", "chosen": "a", "rejected": "b"},
]
CELLS = [list(ROWS[0]), *[list(row.values()) for row in ROWS]]


def quoted(delimiter: str) -> str:
    return "\n".join(delimiter.join(f'"{cell}"' for cell in cells) for cells in CELLS)


TEXTS = {
    ".jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    ".json": json.dumps(ROWS, indent=1),
    ".csv": quoted(","),
    ".tsv": quoted("\t"),
}


@pytest.mark.parametrize("suffix", TEXTS)
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("zipped", ["", ".gz", ".GZ"])
def test_rows_are_the_same_in_every_encoding_and_format(
    tmp_path: Path, suffix: str, code: str, zipped: str
) -> None:
    data = TEXTS[suffix].encode(code)
    path = tmp_path / f"rows{suffix}{zipped}"
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("suffix", "lines"),
    [
        (".jsonl", ['{"a": "1"}', "", '{"a": "2"}']),
        (".csv", ["a", "1", ",", "2"]),
        (".csv", ["sep=;", "a;b", "1;", "", "2;"]),
        (".csv", ['"sep=;"', "a;b", "1;", "", "2;"]),
        (".csv", ["a;b", "1", "", "2;"]),
        (".csv", [",a", "0,1", "1,2"]),
    ],
)
def test_lines_end_as_any_editor_ends_them(tmp_path: Path, end: str, suffix: str, lines: list[str]) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(end.join([*lines, ""]).encode())
    numbers = [number for number, line in enumerate(lines, start=1) if "1" in line or "2" in line]
    read = list(read_rows(path))
    assert [row for _, row in read] == [{"a": "1"}, {"a": "2"}]
    assert [number for number, _ in read] == [n for n in numbers if lines[n - 1] != ",a"]


def test_a_cell_may_hold_messages_as_json(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi?"}]
    cell = json.dumps(talk).replace('"', '""')
    path = tmp_path / "rows.csv"
    path.write_text(f'prompt,chosen,rejected\n"{cell}",a,b\n')
    (pair,), _ = load_pairs(path)
    assert [m.content for m in pair.conversation] == ["Hi?"]


def test_parquet_is_read_with_its_lists_of_messages(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    hi, off = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Go off."}
    rows = [
        {"chosen": [hi, {"role": "assistant", "content": "Hello!"}], "rejected": [hi, off], "margin": 1.5},
        {"chosen": [hi, off], "rejected": [{"role": "tool", "content": "x"}], "margin": None},
    ]
    for name, table in (("good.parquet", rows[:1]), ("bad.parquet", rows)):
        parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / name)
    (pair,), _ = load_pairs(tmp_path / "good.parquet")
    assert (pair.conversation[0].content, pair.chosen, pair.strength) == ("Hi?", "Hello!", 1.5)
    with pytest.raises(InputError, match=r"bad\.parquet:2: rejected\.0\.role: "):
        load_pairs(tmp_path / "bad.parquet")


def test_without_pyarrow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"the package 'pyarrow' is not installed.*constitutional-ai\[local\]"):
        list(read_rows(tmp_path / "rows.parquet"))


BAD = [  # (file, its text, the error after the path)
    ("a.csv", "prompt,split\nHow, then?,train\n", ":2: 3 cells, but the first line names 2"),
    ("a.csv", 'prompt\nfine\n"open\nand so on', ":3: not CSV"),
    ("a.csv", "prompt,prompt\na,b", ":1: two columns are named 'prompt'"),
    (
        "a.csv",
        "prompt,chosen\na,\"[{'role': 'user', 'content': 'Hi?'}]\"",
        ":2: chosen: holds messages that are not",
    ),
    (
        "a.jsonl",
        '{"a": 1}\n{“a”: 1}',
        ":2: not JSON (a curly quotation mark instead of a straight one at column 2)",
    ),
    ("a.jsonl", '{"a": 1}\n3', ":2: not a JSON object"),
    ("a.jsonl", '{"a": "\\ud800"}', ":1: a text holds half of a character"),
    ("a.json", '[{"a": 1},\n\n 3]', ":3: not a JSON object"),
    ("a.parquet", "prompt", " is not Parquet that can be read"),
]


@pytest.mark.parametrize(("name", "text", "said"), BAD)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(read_rows(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}{said}")
    assert "\n" not in str(caught.value)
