"""What a later round undoes is said."""

from __future__ import annotations

import asyncio
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import Constitution, Principle, load_constitution
from constitutional_ai.errors import InputError
from constitutional_ai.models.model import Format
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import (
    Completion,
    Conversation,
    Message,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.report.show.round_scores import ASKS, Rounds, parts, round_scores_of, score_rounds
from constitutional_ai.rl_cai.feedback.label import label
from constitutional_ai.rl_cai.feedback.settings import Feedback, MethodName
from constitutional_ai.runs.run import Run
from tests.report.conftest import BENIGN, HOSTILE, RED, write_rows
from tests.report.conftest import chain as hostile_chain

BRIEF = Principle(name="brief", revision="Write it in fewer words.", preference="Which is briefer?")
KIND = Principle(name="kind", revision="Write it more kindly.", upheld="You are kind.", broken="You are rude.")
MINE = Constitution(name="mine", principles=(BRIEF, KIND))
PROMPT = Prompt.of((Message("user", "Hi?"),), "red_team", "test")


def said(text: str) -> Completion:
    return Completion(text, "m", "stop", 0, 1)


def chain(*rounds: tuple[Principle, str], initial: str = "LONG RUDE") -> RevisionChain:
    made = RevisionChain(f"{PROMPT.id}.0", MINE.digest, Response(f"{PROMPT.id}.0", PROMPT, said(initial)))
    for principle, text in rounds:
        made = made.revised_by(Revision(principle.name, None, said(text)))
    return made


PULLED_APART = chain((BRIEF, "SHORT RUDE"), (KIND, "LONG KIND"), (KIND, "SHORT KIND"))


def weigh(context: str, continuation: str) -> float:
    """Sees what each principle wants; gives it 0.9, and two answers that are alike in it one half each."""
    wanted = "SHORT" if BRIEF.preference in context else "KIND"
    a, b = (text.split("]]]")[0] for text in re.split(r"\([AB]\) \[\[\[", context)[1:])
    if (wanted in a) == (wanted in b):
        return math.log(0.5)
    return math.log(0.9 if (wanted in a) == (continuation == " (A)") else 0.1)


def scored(made: RevisionChain, model: Any = None, **changes: Any) -> Rounds:
    ask = partial(label, model=model or ScriptedModel(weigh=weigh), seed=0)
    return asyncio.run(score_rounds(made, ask, MINE, Feedback(**changes)))


def printed(*shown: RenderableType) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system=None)
    console.print(*shown, sep="\n")
    return out.getvalue()


def test_a_later_principle_that_takes_back_what_an_earlier_one_gained_is_named() -> None:
    found = scored(PULLED_APART)
    brief = [r.better["brief"] for r in found.rounds]
    kind = [r.better["kind"] for r in found.rounds]
    assert brief == pytest.approx([0.5, 0.9, 0.5, 0.9])
    assert kind == pytest.approx([0.5, 0.5, 0.9, 0.9])
    assert {number: by.number for number, by in found.undone.items()} == {1: 2}
    text = printed(*parts("chain", found))
    assert re.search(r"1 +brief +– +0.90 +0.50 +undone by round 2 \(kind\)", text)
    assert text.count("undone") == 1


def test_what_is_kept_is_not_marked() -> None:
    assert scored(chain((BRIEF, "SHORT RUDE"), (KIND, "SHORT KIND"))).undone == {}


def test_every_round_of_a_principle_drawn_twice_has_its_own_gain_to_lose() -> None:
    twice = chain((KIND, "LONG KIND"), (KIND, "SHORT KIND"), (BRIEF, "SHORT RUDE"))
    found = scored(twice)
    assert list(found.rounds[0].better) == ["kind", "brief"]
    assert {number: by.number for number, by in found.undone.items()} == {1: 3, 2: 3}


def test_a_principle_without_a_question_asks_which_does_what_its_request_says() -> None:
    seen: list[str] = []

    def listen(context: str, continuation: str) -> float:
        seen.append(context)
        return weigh(context, continuation)

    scored(PULLED_APART, ScriptedModel(weigh=listen))
    asked = {context.split("Hi?\n\n\n")[1].split(" Options:")[0] for context in seen}
    assert asked == {"Which is briefer?", f"{ASKS}Write it more kindly."}


def test_by_likelihood_a_principle_without_its_two_assistants_is_asked_by_letters() -> None:
    found = scored(PULLED_APART, ScriptedModel(weigh=lambda context, end: -1.0), method="likelihood")
    assert "judged by multiple_choice" in printed(*parts("chain", found))
    assert found.rounds[2].better == {"brief": 0.5, "kind": 0.5}


@pytest.mark.parametrize("method", ["multiple_choice", "chain_of_thought"])
def test_a_fall_is_not_hidden_by_the_clamp_of_labels(method: MethodName) -> None:
    model = ScriptedModel(say=lambda context: "Because.", weigh=weigh)
    assert scored(PULLED_APART, model, method=method).rounds[1].better["brief"] == pytest.approx(0.9)


def test_a_question_that_fails_is_a_dash_with_its_reason() -> None:
    model = ScriptedModel(
        weigh=lambda c, end: math.nan if "LONG KIND" in c and "briefer" in c else weigh(c, end)
    )
    found = scored(PULLED_APART, model)
    assert [r.better["brief"] for r in found.rounds] == pytest.approx([0.5, 0.9, math.nan, 0.9], nan_ok=True)
    (note,) = found.notes
    assert note.startswith("round 2, brief: UnreadableAnswer: ")
    assert found.undone == {}
    assert re.search(r"2 +kind +– +– +0.90", printed(*parts("chain", found)))


def test_a_revision_that_was_left_out_is_not_asked_about() -> None:
    faulty = replace(PULLED_APART.revisions[1], fault="repetition")
    made = replace(PULLED_APART, revisions=(PULLED_APART.revisions[0], faulty, PULLED_APART.revisions[2]))
    found = scored(made)
    assert all(math.isnan(value) for value in found.rounds[2].better.values())
    assert found.notes == ["round 2 was left out: repetition"]


def test_an_answer_that_stayed_as_it_was_is_no_better_and_no_worse() -> None:
    found = scored(chain((KIND, "LONG RUDE")), ScriptedModel(weigh=lambda context, end: math.nan))
    assert [r.better["kind"] for r in found.rounds] == [0.5, 0.5]


def test_another_constitution_than_the_chains_is_not_asked() -> None:
    other = Principle(name="other", revision="Write it otherwise.")
    for changed in (replace(PULLED_APART, constitution="other"), chain((other, "SHORT"))):
        with pytest.raises(InputError, match=r"has changed since .* was revised. Pass --redo 02-revisions"):
            scored(changed)


def test_every_round_has_a_score_of_the_preference_model() -> None:
    async def reward(conversation: Conversation) -> float:
        assert conversation[0] == PROMPT.conversation[0]
        return float(len(conversation[-1].content))

    model = ScriptedModel(weigh=weigh)
    asked = score_rounds(PULLED_APART, partial(label, model=model, seed=0), MINE, Feedback(), reward)
    assert [r.reward for r in asyncio.run(asked).rounds] == [9.0, 10.0, 9.0, 10.0]


# -- from a run


def scripted(run: Run, fmt: Format = "chat") -> Run:
    """The run with a feedback model that is nobody's, and chains of its own constitution."""
    recipe = load_recipe("paper", ["models.feedback=scripted:echo", f"feedback.format={fmt}"])
    (run.folder / "recipe.yaml").write_text(recipe.to_yaml())
    digest = load_constitution(run.folder / "constitution.yaml").digest
    chains = [replace(hostile_chain(p), constitution=digest) for p in RED]
    write_rows(run.folder / "02-revisions/records.jsonl", chains)
    return run


@pytest.mark.parametrize("fmt", ["chat", "plain"])
def test_a_runs_own_models_are_asked(run: Run, make_tiny: Callable[..., Path], fmt: Format) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tiny, folder = make_tiny(max_position_embeddings=2048), run.folder / "06-preference-model/model"
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    text = printed(round_scores_of(scripted(run, fmt), RED[0].id))
    assert f"scores of {RED[0].id}.0 by round" in text
    assert len(re.findall(r"-?\d+\.\d\d +0\.50", text)) == 2
    assert "only differences have a meaning" in text and "by scripted:echo." in text


def test_without_a_preference_model_there_is_no_score_and_no_text_is_obeyed(run: Run) -> None:
    (run.folder / "06-preference-model/stage.json").unlink()
    text = printed(round_scores_of(scripted(run), RED[0].id))
    assert re.search(r"0 +\(initial answer\) +– +0\.50", text)
    assert "\x1b[2J" not in text and "\u202e" not in text
    assert "[bold]b[/bold]" in text
    assert HOSTILE not in text


def test_the_command_prints_the_life_and_then_the_scores(run: Run) -> None:
    (run.folder / "06-preference-model/stage.json").unlink()
    made = CliRunner().invoke(main, ["show", str(scripted(run).folder), RED[0].id, "--scores"])
    assert made.exit_code == 0
    assert made.output.index("08-evaluation") < made.output.index(f"scores of {RED[0].id}.0 by round")


def test_a_prompt_without_revisions_says_so(run: Run) -> None:
    with pytest.raises(InputError, match="has no revisions to score"):
        round_scores_of(run, BENIGN[0].id)
