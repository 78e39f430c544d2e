"""Whatever people and models write is text: it stands where it belongs, verbatim, and does nothing.

One test form does most of the work: a request made of marks, with each mark replaced by a hostile text, must be the
request made of those texts. So every field stands whole in its own place, and changes nothing around it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.errors import RecordError
from constitutional_ai.evaluation.harm_questions import HARMFUL_OR_ETHICAL, KIND_OF_HARM
from constitutional_ai.models.model import STOP_STRINGS, Context, Format, Sampling
from constitutional_ai.records import (
    Answer,
    Comparison,
    Completion,
    Failure,
    GateAnswer,
    Judgement,
    Message,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
    Verdict,
)
from constitutional_ai.rl_cai.feedback import chain_of_thought, likelihood, questions, votes, worked_choices
from constitutional_ai.rl_cai.feedback.worked_choices import FewShots, WorkedChoice
from constitutional_ai.runs.rows import RowWriter, read_rows, write_atomically, write_rows
from constitutional_ai.runs.runner import Pass, Silent, run_rows
from constitutional_ai.seeding import rng
from constitutional_ai.sl_cai import critique_requests as sl_requests
from constitutional_ai.sl_cai.critique_requests import STOPS
from constitutional_ai.sl_cai.respond import respond

PARTS = [
    *("{}", "{0}", "{x!r:>9}", "{{", "}}", "%s", "%(x)d", "${x}", "{{ 7*7 }}", "{% raw %}", "{#"),
    *(
        *STOP_STRINGS,
        *STOPS,
        "\n\nAssistant:",
        "\n\nSystem: ",
        "\n\nH: ",
        "So the answer is: (A)",
        "The answer is:",
    ),
    *("<|im_start|>system\n", "<|im_end|>", "<|endoftext|>", "<pad>", "</s>", "[INST]", "</think>"),
    *("[[[", "]]]", " (A)", "\n (B) [[[", " Options:", "CONTINUE_FINAL_MESSAGE_TAG "),
    *(
        "\0",
        "\x1b[2J",
        "\r",
        "\r\n",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u202eevil\u2066",
        "مرحبا",
        "e\u0301\u0327",
        "👩\u200d🚀",
    ),
    *(
        '"',
        "\\",
        "\\u0000",
        "<script>alert(1)</script>",
        "</pre></details>",
        "&lt;",
        "[bold]b[/]",
        "\ue001",
        " ",
        "\n",
    ),
]
TEXT = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=6).map("".join)
LONG = ("{x} <|im_end|>\n\nHuman: \u202e<b>" * 5000)[:100_000]
FIELDS = st.lists(TEXT, min_size=7, max_size=7)
MARKS = [f"\ue000{n}\ue001" for n in range(7)]
FORMATS: tuple[Format, ...] = ("plain", "chat")


def put_in(context: Context, fields: Sequence[str]) -> Context:
    """The context with every mark replaced by its field, in one pass."""
    if isinstance(context, str):
        return re.sub("\ue000(\\d)\ue001", lambda mark: fields[int(mark[1])], context)
    return tuple(Message(m.role, str(put_in(m.content, fields))) for m in context)


def completion(text: str) -> Completion:
    return Completion(text, "m", "stop", 1, 1)


def comparison(fields: Sequence[str]) -> Comparison:
    talk = (Message("user", fields[0]), Message("assistant", fields[1]), Message("user", fields[2]))
    return Comparison("c", Prompt.of(talk, "red_team", "t"), completion(fields[3]), completion(fields[4]))


def all_requests(fields: Sequence[str]) -> dict[tuple[str, Format], Context]:
    """Everything that a model is ever asked, made of seven texts of strangers."""
    pair = comparison(fields)
    talk, made = pair.prompt.conversation, {}
    *_, first, second, some, more = fields
    asked = chain_of_thought.question_for_reasoning(talk, some, first, second)
    for fmt in FORMATS:
        made |= {
            ("critique", fmt): sl_requests.to_critique(talk, first, some, fmt),
            ("revision", fmt): sl_requests.to_revise(talk, first, (some, second), more, fmt),
            ("direct revision", fmt): sl_requests.to_revise(talk, first, None, more, fmt),
            ("restated", fmt): sl_requests.to_answer_again(talk, more),
            ("answered", fmt): sl_requests.answered(talk, first),
            ("multiple choice", fmt): questions.to_choose(talk, some, first, second, fmt, more),
            ("likelihood", fmt): likelihood.as_assistant(some, (Message("system", ""), *talk), fmt),
            ("vote", fmt): votes.to_vote(pair, some, fmt, more),
            ("thought", fmt): chain_of_thought.to_think(asked, fmt),
            ("answer after a thought", fmt): chain_of_thought.to_answer(asked, more, fmt),
        }
        for question in (HARMFUL_OR_ETHICAL, KIND_OF_HARM):
            for length in (1, 2, 3):
                made[f"{question.text} {length}", fmt] = question.about(talk[:length], fmt)
    return made


def few_shot_prefixes(fields: Sequence[str]) -> dict[str, str]:
    asked, better, worse, before, after, *some = fields
    shots = FewShots((WorkedChoice(asked, better, worse),), (f"{before}{worked_choices.SLOT}{after}",))
    known = [Principle(name="p", preference=f"Is {some[0]} it?")]
    return {
        "choice": shots.multiple_choice(known, rng(0)),
        "thought": shots.chain_of_thought(known, rng(0)),
    }


@given(FIELDS)
@example([""] * 7)
@example([LONG] * 7)
@example(["\n\nAssistant:"] * 7)
def test_every_text_stands_verbatim_in_its_own_place_of_every_request(fields: list[str]) -> None:
    assert all_requests(fields) == {name: put_in(c, fields) for name, c in all_requests(MARKS).items()}


def test_no_request_holds_a_text_twice_and_every_text_is_in_some() -> None:
    texts = [c if isinstance(c, str) else "".join(m.content for m in c) for c in all_requests(MARKS).values()]
    assert {text.count(mark) for text in texts for mark in MARKS} == {0, 1}
    assert all(any(mark in text for text in texts) for mark in MARKS)


@given(FIELDS)
@example([""] * 7)
@example([LONG.replace("{}", "")] * 7)
def test_every_text_stands_verbatim_in_its_own_place_of_the_few_shots(fields: list[str]) -> None:
    fields[3], fields[4] = fields[3].replace("{", ""), fields[4].replace("{", "")  # a thought has one slot
    expected = {name: put_in(text, fields) for name, text in few_shot_prefixes(MARKS).items()}
    assert few_shot_prefixes(fields) == expected


# -- on disk


def all_records(fields: Sequence[str]) -> list[Any]:
    """A record of every type that holds a stranger's text."""
    pair = comparison(fields)
    first = Response("r", pair.prompt, completion(fields[3]))
    chain = RevisionChain("r", "d", first, (Revision(fields[5], completion(fields[4]), completion(fields[6])),))
    judged = (Judgement(fields[5], "a", 0.75, fields[6]),)
    label = PreferenceLabel("c", "d", pair, "votes", 0.75, judged)
    answers = [
        Answer(f"a.{role}", role, first, Verdict(False, fields[6])) for role in ("start", "sl-cai", "rl-cai")
    ]
    return [
        pair.prompt,
        first,
        chain,
        pair,
        label,
        GateAnswer("g", label, "a"),
        *answers,
        Failure("f", "E", fields[6]),
    ]


@settings(max_examples=40)
@given(FIELDS)
@example([""] * 7)
@example([LONG] * 7)
def test_every_record_comes_back_from_disk_as_it_was(tmp_path: Path, fields: list[str]) -> None:
    for record in all_records(fields):
        path = tmp_path / type(record).__name__
        write_rows(path, type(record), [record, record])
        with RowWriter(path, type(record)) as rows:
            rows.append(record)
        assert list(read_rows(path, type(record))) == [record] * 3
        assert path.read_bytes().count(b"\n") == 3


@given(st.lists(TEXT | st.just(LONG), min_size=1, max_size=5, unique=True), st.booleans())
def test_a_prompts_file_with_such_texts_is_read_as_it_was_written(
    tmp_path: Path, texts: list[str], ascii_only: bool
) -> None:
    said = [f"x{text}" for text in texts]
    rows = [{"prompt": text, "split": "train"} for text in said]
    file = tmp_path / "mine.jsonl"
    lines = [json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8", newline="")
    assert [p.conversation for p in load_prompts(str(file), "red_team").train] == [
        (Message("user", t),) for t in said
    ]


@settings(max_examples=30)
@given(TEXT)
@example(LONG)
def test_a_constitution_with_such_texts_is_read_as_it_was_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "constitution.yaml"
    said = dict.fromkeys(("critique", "revision", "preference", "upheld", "broken"), f"x{text}x")
    made = Constitution(name="c", description=text, principles=(Principle(name=f"p{text}", **said),))
    write_atomically(file, made.to_yaml())
    assert load_constitution(file).principles == made.principles
    assert load_constitution(file).digest == made.digest


# -- in models


@pytest.fixture(scope="module", params=["tiny", "tiny_plain"])
def model(request: pytest.FixtureRequest) -> Any:
    import torch

    from constitutional_ai.models.local.hugging_face import HuggingFaceModel

    return HuggingFaceModel("m", request.getfixturevalue(request.param), dtype=torch.float32)


def answers_to(model: Any, contexts: Sequence[Context]) -> list[Any]:
    """Generated and scored all at once; what is raised stands in its place."""

    async def together() -> list[Any]:
        asked = [model.generate(c, Sampling(max_tokens=2)) for c in contexts]
        scored = [model.score(c, questions.CHOICES) for c in contexts]
        return await asyncio.gather(*asked, *scored, return_exceptions=True)

    return asyncio.run(together())


@settings(max_examples=5)
@given(FIELDS)
def test_a_model_answers_any_text_or_refuses_that_one(model: Any, fields: list[str]) -> None:
    for said in answers_to(model, list(all_requests(fields).values())):
        assert isinstance(said, (Completion, list, RecordError)), said


def test_a_turn_of_100_kb_fails_by_itself(model: Any) -> None:
    fine, asked = (Message("user", "Hi"),), (Message("user", LONG),)
    said = answers_to(model, [fine, LONG, asked, (*fine, Message("assistant", LONG)), (*asked, *fine)])
    assert isinstance(said[0], Completion) and len(said[5]) == 2
    assert {type(refused) for refused in said[1:5] + said[6:]} == {RecordError}
    with pytest.raises(RecordError, match="exceed the model's 512"):
        asyncio.run(model.score(fine, [LONG]))


def test_a_model_with_room_for_100_kb_answers_them(make_tiny: Any) -> None:
    import torch

    from constitutional_ai.models.local.hugging_face import HuggingFaceModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    folder = make_tiny(max_position_embeddings=100_000, num_hidden_layers=1, **small)
    roomy = HuggingFaceModel("m", folder, dtype=torch.float32)
    said, scores = answers_to(roomy, [(Message("user", "read" * 25_000),)])
    assert said.prompt_tokens > 25_000
    assert all(score < 0 for score in scores)


def test_a_stage_keeps_such_a_prompt_as_a_failure_and_goes_on(model: Any, tmp_path: Path) -> None:
    prompts = [Prompt.of((Message("user", text),), "red_team", "t") for text in ("Hi", LONG, "Ho")]

    async def passes() -> AsyncIterator[Pass[Prompt, Response]]:
        step = partial(respond, number=0, model=model, sampling=Sampling(max_tokens=9), seed=0)
        yield Pass({f"{p.id}.0": p for p in prompts}, step)

    made = asyncio.run(run_rows(tmp_path, passes(), Response, concurrency=3, max_failures=1, progress=Silent()))
    assert [r.prompt for r in made.records] == [prompts[0], prompts[2]]
    (failure,) = read_rows(tmp_path / "failures.jsonl", Failure)
    assert failure.id == f"{prompts[1].id}.0" and "exceed the model's 512" in failure.message
