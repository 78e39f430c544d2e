from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.errors import DiskFull, InputError
from constitutional_ai.records import (
    Answer,
    Checkpoint,
    Comparison,
    Completion,
    Failure,
    GateAnswer,
    Message,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    RevisionChain,
    Verdict,
)
from constitutional_ai.runs.rows import (
    RowWriter,
    adapter,
    cut_torn_line,
    digest_file,
    read_rows,
    write_atomically,
)

ROW_TYPES = (
    Message,
    Prompt,
    Completion,
    Response,
    RevisionChain,
    Comparison,
    PreferenceLabel,
    GateAnswer,
    Checkpoint,
    Verdict,
    Answer,
    Metric,
    Failure,
)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
EASY = settings(max_examples=25)


def failures(*texts: str) -> list[Failure]:
    return [Failure(str(n), "RecordError", text) for n, text in enumerate(texts)]


def write(path: Path, rows: list[Failure]) -> None:
    with RowWriter(path, Failure) as writer:
        for row in rows:
            writer.append(row)


@pytest.mark.parametrize("row_type", ROW_TYPES, ids=lambda t: t.__name__)
def test_every_record_reads_back_as_it_was_written(tmp_path: Path, row_type: type) -> None:
    @EASY
    @given(st.lists(st.from_type(row_type), max_size=3))
    def round_trip(rows: list[object]) -> None:
        path = tmp_path / "records.jsonl"
        path.unlink(missing_ok=True)
        with RowWriter(path, row_type) as writer:
            for row in rows:
                writer.append(row)
        assert list(read_rows(path, row_type)) == rows
        assert path.read_bytes().count(b"\n") == len(rows)

    round_trip()


def test_no_file_holds_no_rows(tmp_path: Path) -> None:
    assert list(read_rows(tmp_path / "none.jsonl", Failure)) == []


def test_a_row_is_on_disk_once_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RowWriter(path, Failure) as writer:
        for number, row in enumerate(failures("one", "two"), start=1):
            writer.append(row)
            assert len(list(read_rows(path, Failure))) == number


def test_a_record_whose_line_is_torn_anywhere_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    rows = failures("one", "zwölf", "{\n}")
    write(path, rows)
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)
        assert list(read_rows(path, Failure)) == rows[:kept]
        write(path, rows[kept:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [1, 65_535, 65_536, 65_537, 200_000])
def test_a_torn_line_of_any_length_is_cut(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "records.jsonl"
    for head in (b"", b"{}\n", b"{}\n" * 30_000):
        path.write_bytes(head + b"x" * tail)
        cut_torn_line(path)
        assert path.read_bytes() == head


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{torn", "not JSON"),
        ('{"id": "1", "error": "E"}', "message: is missing"),
        ('{"id": 1, "error": "E", "message": "m"}', "id: must be a text"),
        ("", "not JSON"),
    ],
)
def test_a_bad_line_in_the_middle_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "records.jsonl"
    write(path, failures("one", "two"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{second}\n")
    with pytest.raises(InputError) as caught:
        list(read_rows(path, Failure))
    assert str(caught.value).startswith(f"{path}:2: {said}")
    assert str(caught.value).endswith("Delete this line, then type the same command.")


def test_a_full_disk_gives_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.symlink_to("/dev/full")
    with Path("/dev/full").open("ab", buffering=0) as full:
        writer = RowWriter(path, Failure)
        writer._file = full
        with pytest.raises(DiskFull, match=f"the disk is full while writing {path}. Everything before is kept"):
            writer.append(failures("one")[0])


def test_a_short_write_is_a_full_disk_and_leaves_earlier_rows_whole(tmp_path: Path) -> None:
    """The process may write files of at most 200 bytes."""
    path = tmp_path / "records.jsonl"
    code = f"""
import resource, signal
from pathlib import Path
from constitutional_ai.errors import DiskFull
from constitutional_ai.records import Failure
from constitutional_ai.runs.rows import RowWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    with RowWriter(Path({str(path)!r}), Failure) as writer:
        for number in range(100):
            writer.append(Failure(str(number), "RecordError", "message"))
except DiskFull as error:
    print("DiskFull")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "DiskFull\n", result.stderr
    kept = [row.id for row in read_rows(path, Failure)]
    assert kept == [str(n) for n in range(len(kept))]
    assert len(kept) >= 3
    write(path, failures("after"))
    assert [row.id for row in read_rows(path, Failure)] == [*kept, "0"]


def test_a_small_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stage.json"
    write_atomically(path, "old")

    def torn(self: Path, text: str, **_: object) -> None:
        self.write_bytes(text[:2].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", torn)
    with pytest.raises(DiskFull, match=str(path)):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"


def test_other_errors_of_the_disk_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "stage.json", "x")


def test_a_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert digest_file(tmp_path / "x") == "ba7816bf8f01cfea"  # sha256 of "abc" begins so (FIPS 180-2)


def test_one_adapter_per_type() -> None:
    assert adapter(Failure) is adapter(Failure)
