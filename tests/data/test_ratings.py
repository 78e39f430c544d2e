from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.ratings import Rated, load_ratings
from constitutional_ai.errors import InputError
from constitutional_ai.records import Message, conversation_id

ATTEMPT = {
    "transcript": "\n\nHuman: Rob it!\n\nAssistant: No.\n\nHuman: Please!\n\nAssistant: Take the back door.",
    "rating": 3.0,
    "tags": None,
}
SCORED = {"objective": "Rob it!", "assistant_response": "No.", "human_score": "0.25", "set": "harm"}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "ratings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def talk(asked: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", asked), Message("assistant", answer))


def rated(request: str, answer: str, rating: float) -> Rated:
    return Rated(conversation_id(talk(request, answer)), talk(request, answer), rating)


OWN = [{"role": "user", "content": "Rob it!"}, {"role": "assistant", "content": "No."}]


@pytest.mark.parametrize(
    ("row", "rating"),
    [
        (SCORED, 1.0),
        ({**SCORED, "human_score": None, "human_score_1": "0.5", "human_score_2": "1"}, 3.0),
        ({"messages": OWN, "rating": 3, "scale": 4}, 3.0),
        ({"conversation": OWN, "harm": 0.75, "scale": 1}, 3.0),
        ({"prompt": "Rob it!", "response": "No.", "harm": 1, "scale": 1}, 4.0),
        ({"prompt": "Rob it!", "response": "No.", "harm": 1, "scale": 4}, 1.0),
        ({"prompt": OWN[:1], "response": "No.", "rating": 1, "scale": 4}, 1.0),
    ],
)
def test_ratings_of_every_form_are_on_the_papers_scale(tmp_path: Path, row: Any, rating: float) -> None:
    (one,) = load_ratings(written(tmp_path, row)).usable
    assert one == rated("Rob it!", "No.", rating)


def test_a_red_team_attempt_is_the_whole_conversation(tmp_path: Path) -> None:
    (one,) = load_ratings(written(tmp_path, ATTEMPT)).usable
    assert one.rating == 3.0
    assert one.conversation == talk("Rob it!", "No.") + talk("Please!", "Take the back door.")
    assert one.prompt == conversation_id((Message("user", "Rob it!"),))


def test_a_file_that_is_one_gzipped_list_is_read_as_hh_rlhfs_is(tmp_path: Path) -> None:
    path = tmp_path / "red_team_attempts.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps([ATTEMPT, {**ATTEMPT, "transcript": ""}]).encode()))
    usable, unusable = load_ratings(path)
    assert [one.rating for one in usable] == [3.0]
    assert unusable == {"no answer to a human turn at its end": 1}


@pytest.mark.parametrize("rating", [0, 0.25, 1])
def test_a_scale_is_never_guessed(tmp_path: Path, rating: float) -> None:
    """A file whose ratings all lie between 0 and 1 may be a file of mild conversations out of 4 (pitfall 25)."""
    path = written(tmp_path, {"messages": OWN, "rating": rating})
    with pytest.raises(InputError, match=r":1: the scale of this rating is unknown.*--scale"):
        load_ratings(path)
    assert load_ratings(path, 4).usable[0].rating == rating
    assert load_ratings(path, 1).usable[0].rating == 4 * rating


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**SCORED, "human_score": "2"}, "the rating 2 is not between 0 and 1"),
        ({**ATTEMPT, "rating": -1}, "the rating -1 is not between 0 and 4"),
        ({**ATTEMPT, "rating": "high"}, "rating: must be a number"),
        ({**SCORED, "human_score": "high"}, "could not convert"),
        ({"messages": OWN, "rating": float("nan"), "scale": 4}, "the rating nan is not between"),
        ("a string", "not a JSON object"),
    ],
)
def test_a_row_that_is_no_rating_is_named(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(InputError, match=rf"ratings\.jsonl:2: {said}"):
        load_ratings(written(tmp_path, ATTEMPT, row))


def test_rows_left_out_are_counted_and_several_raters_are_averaged(tmp_path: Path) -> None:
    rows = [
        SCORED,
        {**SCORED, "human_score": "0.75"},
        {**SCORED, "set": "objective"},
        {**SCORED, "human_score": ""},
        {**SCORED, "assistant_response": " "},
        {"messages": OWN[:1], "rating": 1, "scale": 4},
    ]
    usable, unusable = load_ratings(written(tmp_path, *rows))
    assert usable == [rated("Rob it!", "No.", 2.0)]
    assert unusable == {
        "a rating of 'objective', not of harm": 1,
        "no rating": 1,
        "an empty turn": 1,
        "no answer to a human turn at its end": 1,
        "the same conversation again, its ratings averaged": 1,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[{]", r":1: not JSON"),
        (b'{"a": 1}\n{', r":2: not JSON"),
        (b"\xff", "not UTF-8"),
        (b"", "no usable rated conversations. Name"),
        (b'{"answer": 1}', r"no usable rated conversations \(1 × no rating\)"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "ratings.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_ratings(path)
    with pytest.raises(InputError, match="no file"):
        load_ratings(tmp_path / "none.jsonl")


DATA = Path(os.environ.get("CAI_DATA_DIR", Path(__file__).parents[3] / "shared" / "data")) / "judges"


@pytest.mark.skipif(not DATA.is_dir(), reason="CAI_DATA_DIR has no rated answers")
def test_all_scored_responses_are_read() -> None:
    usable, unusable = load_ratings(DATA / "scored-responses.jsonl.gz")
    assert len(usable) == 512 and len({one.prompt for one in usable}) == 194
    assert sum(unusable.values()) == 188 + 54 + 4
    assert {min(one.rating for one in usable), max(one.rating for one in usable)} == {0.0, 4.0}
