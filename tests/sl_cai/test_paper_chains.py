"""The paper's released chains of critiques and revisions, written anew by our requests (SL-6, SL-7).

What stands between a chain's own texts must be exactly the released request of that step. Our requests write the
one space that a sample begins with, so it is taken off first; trailing line breaks are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from constitutional_ai.constitutions.published import import_constitution
from constitutional_ai.records import Message
from constitutional_ai.sl_cai.critique_requests import STOPS, to_critique, to_revise
from tests.paper_files import PAPER, paper, rows

FILES = sorted(PAPER.rglob("*_SLMADISON.jsonl"))
HEAD, TAIL = "\n\nHuman: ", "\n\nAssistant:"


class Step(NamedTuple):
    prompt: str
    answer: str
    raw: dict[str, Any]


def steps(row: dict[str, Any]) -> Iterator[Step]:
    """The steps of one chain; each revision takes the answer's place in the next."""
    answer = row["initial_response"][0]["sample"]
    for raw in row["cst"]:
        yield Step(row["rl_prompt"], answer, raw)
        answer = raw["revision"]["sample"]


def all_steps() -> list[Step]:
    return [step for file in FILES for row in rows(file) for step in steps(row)]


def samples(row: dict[str, Any]) -> list[str]:
    made = [row["initial_response"][0]["sample"]]
    return made + [raw[side]["sample"] for raw in row["cst"] for side in ("critique", "revision")]


@paper
def test_every_released_chain_is_written_anew_byte_for_byte() -> None:
    known = import_constitution(PAPER)
    for prompt, answer, raw in all_steps():
        talk = (Message("user", prompt.removeprefix(HEAD).removesuffix(TAIL)),)
        said, critique = answer.removeprefix(" "), raw["critique"]["sample"].removeprefix(" ")
        principle = next(p for p in known.principles if p.name == raw["cst_key"])
        asked, wanted = principle.critique or "", principle.revision or ""
        critique_request, revision_request = raw["cst_value"]["prompt"][0], raw["cst_value"]["edit_request"]

        first = f"{prompt} {said}{critique_request}"
        assert to_critique(talk, said, asked, "plain") == first
        assert (
            to_revise(talk, said, (asked, critique), wanted, "plain") == f"{first} {critique}{revision_request}"
        )
        assert to_revise(talk, said, None, wanted, "plain") == f"{prompt} {said}{revision_request}"


@paper
def test_a_released_sample_begins_with_one_space_but_for_one_critique() -> None:
    """That one is the only text of the 360 that our requests would not write as it was released."""
    chains = rows(PAPER / "samples" / "PALMS_SLMADISON.jsonl")
    spaces = Counter(len(text) - len(text.lstrip(" ")) for row in chains for text in samples(row))
    assert spaces == {1: 359, 0: 1}


@paper
def test_no_released_sample_holds_a_stop_string() -> None:
    assert not [
        text for file in FILES for row in rows(file) for text in samples(row) if any(s in text for s in STOPS)
    ]
