from __future__ import annotations

import json
from pathlib import Path

import pytest

from constitutional_ai.data.pairs import load_pairs
from constitutional_ai.errors import InputError
from constitutional_ai.records import Message

HI = {"role": "user", "content": "Hi?"}
HELLO, OFF = {"role": "assistant", "content": "Hello!"}, {"role": "assistant", "content": "Go off."}
REPLIES = {"chosen": "Hello!", "rejected": "Go off."}


def written(folder: Path, *rows: object) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi?", **REPLIES},
        {"prompt": "\n\nHuman: Hi?\n\nAssistant:", **REPLIES},
        {"prompt": [HI], **REPLIES},
        {"prompt": [HI], "chosen": [HELLO], "rejected": [OFF]},
        {"prompt": "Hi?", "chosen": [HI, HELLO], "rejected": [HI, OFF], "messages": [HI, HELLO]},
        {"conversation": [HI], **REPLIES},
        {"messages": [HI], **REPLIES, "source": "elsewhere"},
        {"chosen": [HI, HELLO], "rejected": [HI, OFF]},
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi?\n\nAssistant: Go off."},
    ],
)
def test_every_common_form_is_the_same_pair(tmp_path: Path, row: object) -> None:
    (pair,), unusable = load_pairs(written(tmp_path, row))
    assert (pair.conversation, pair.chosen, pair.rejected) == ((Message("user", "Hi?"),), "Hello!", "Go off.")
    assert unusable == {}


def test_dialogues_differ_in_the_last_reply_even_when_replies_start_alike(tmp_path: Path) -> None:
    talk = "\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: A joke: now!\n\nAssistant:"
    row = {"chosen": f"{talk} Why not.\n\nTwo men …", "rejected": f"{talk} Why?"}
    (pair,), _ = load_pairs(written(tmp_path, row))
    assert [m.content for m in pair.conversation] == ["Hi?", "Yes?", "A joke: now!"]
    assert (pair.chosen, pair.rejected) == ("Why not.\n\nTwo men …", "Why?")


UNUSABLE = [
    ({"prompt": "Hi?", "chosen": "Hello!", "rejected": " "}, "an empty turn"),
    ({"prompt": " ", **REPLIES}, "an empty turn"),
    ({"prompt": "Hi?", "chosen": "Hello!", "rejected": "Hello! "}, "both replies are the same"),
    (REPLIES, "no reply to a human turn"),
    ({"messages": [HI, HELLO], **REPLIES}, "no reply to a human turn"),
    ({"prompt": "Hi?", "chosen": [HI], "rejected": [OFF]}, "no reply to a human turn"),
    (
        {"chosen": "\n\nHuman: Hi?\n\nAssistant: Hello!", "rejected": "\n\nHuman: Ho?\n\nAssistant: Off."},
        "the dialogues differ before the last reply",
    ),
    (
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Hello!",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: A\n\nHuman: B\n\nAssistant: C",
        },
        "the dialogues differ before the last reply",
    ),
]


@pytest.mark.parametrize(("row", "why"), UNUSABLE)
def test_rows_without_a_usable_pair_are_left_out_and_counted(tmp_path: Path, row: object, why: str) -> None:
    pairs, unusable = load_pairs(written(tmp_path, {"prompt": "Tea?", **REPLIES}, row))
    assert (len(pairs), unusable) == (1, {why: 1})


def test_the_same_pair_counts_once(tmp_path: Path) -> None:
    pairs, unusable = load_pairs(written(tmp_path, *[{"prompt": "Hi?", **REPLIES}] * 3))
    assert (len(pairs), unusable) == (1, {"the same pair again": 2})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"prompt": "Hi?", "chosen": "a", "rejected": "b"}\n{"prompt": "Hi?", "cho', r":2: .*JSON"),
        (b'\n{"prompt": "Hi?", "chosen": "a"}', ":2: rejected: Field required"),
        (b'{"chosen": [], "rejected": []}', ":1: chosen"),
        (b"[1]", ":1: "),
        (b"", "holds no usable pairs"),
        (b'{"prompt": "Hi?", "chosen": "a", "rejected": "a"}', "1 × both replies are the same"),
        (b"caf\xe9", "not UTF-8"),
    ],
)
def test_a_row_that_is_no_pair_is_named_by_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(data)
    with pytest.raises(InputError, match=said):
        load_pairs(file)
