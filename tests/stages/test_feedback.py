"""What feedback costs: every token that its model reports, in ``stage.json`` and under the budget."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.errors import GateClosed, OnlyThought
from constitutional_ai.models.counted import CountedModel, counted
from constitutional_ai.models.model import Context, Sampling
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import (
    Comparison,
    Completion,
    GateAnswer,
    Message,
    PreferenceLabel,
    Prompt,
    Usage,
    usage,
)
from constitutional_ai.rl_cai.feedback.gate import gate_questions
from constitutional_ai.runs.budget import BudgetSpent
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Pass, Silent
from constitutional_ai.stages.feedback import preference_labels
from constitutional_ai.stages.job import Job

STAGE = "05-preference-labels"
PAIRS = 6


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run with finished comparisons, and a feedback model that always says (A)."""

    @contextmanager
    def loaded(self: Job, name: str, stage: str) -> Iterator[ScriptedModel]:
        yield ScriptedModel(say=lambda context: "(A)")

    async def step(number: int) -> Comparison:
        prompt = Prompt.of((Message("user", f"Hi {number}?"),), "red_team", "test")
        return Comparison(str(number), prompt, *[Completion(x, "m", "stop", 9, 9) for x in ("Yes.", "No.")])

    async def passes() -> AsyncIterator[Pass[int, Comparison]]:
        yield Pass({str(n): n for n in range(PAIRS)}, step)

    monkeypatch.setattr(Job, "loaded", loaded)
    with open_run(tmp_path / "run", {}, Silent()) as run:
        run.make_rows("04-comparisons", Comparison, passes, config={}, inputs={})
        yield run


def labelled(run: Run, tokens: int | None = None, **feedback: Any) -> tuple[list[PreferenceLabel], Usage]:
    """The labels, and what stage.json says of their cost."""
    recipe = {"feedback": {"gate": "warn", **feedback}, "budget": {"tokens": tokens}}
    preference_labels(
        Job(run, Recipe.model_validate(recipe), load_constitution("default"), {}, lambda text: None)
    )
    manifest = run.manifest(STAGE)
    assert manifest is not None
    return run.rows(STAGE, PreferenceLabel), Usage(manifest.prompt_tokens, manifest.completion_tokens)


@pytest.mark.parametrize(
    ("method", "words"),
    [("votes", 3 * 2), ("chain_of_thought", 2)],  # one word each: three votes or one thought, in both orders
)
def test_a_stage_counts_the_tokens_of_labels_and_of_the_gate(run: Run, method: str, words: int) -> None:
    labels, cost = labelled(run, method=method, votes=3)
    gate = run.rows(STAGE, GateAnswer, "gate.jsonl")
    assert len(gate) > 40
    assert [usage(label).completion_tokens for label in labels] == PAIRS * [words]
    assert cost.completion_tokens == words * (PAIRS + len(gate))
    assert cost.prompt_tokens == sum(usage(x).prompt_tokens for x in (*labels, *gate)) > cost.completion_tokens


@pytest.mark.parametrize(
    ("control", "gate", "stopped", "said"),
    [  # this model finds both letters as probable, so every answer is a tie
        ("empty", "stop", False, "gate: this is a control run (control: empty), so that is no verdict"),
        ("shuffled", "stop", False, "gate: this is a control run (control: shuffled), so that is no verdict"),
        ("empty", "warn", False, "gate: this is a control run (control: empty), so that is no verdict"),
        (None, "warn", False, "warning: The feedback model prefers neither answer to any question"),
        (None, "stop", True, None),
    ],
)
def test_a_control_run_gets_no_verdict_and_a_tie_is_no_wrong_answer(
    run: Run, control: str | None, gate: str, stopped: bool, said: str | None
) -> None:
    recipe = Recipe.model_validate({"control": control, "feedback": {"gate": gate}})
    constitution, messages = apply_control(load_constitution("default"), control, 0), list[str]()
    with pytest.raises(GateClosed, match="prefers neither answer") if stopped else nullcontext():
        preference_labels(Job(run, recipe, constitution, {}, messages.append))
    assert "no gate question right or wrong: all 48 are ties." in messages[0]
    assert [m for m in messages[1:] if "worse" in m or "larger" in m] == [
        m for m in messages[1:] if "warning" in m
    ]
    assert said is None or messages[1].startswith(said)


@pytest.mark.parametrize("method", ["multiple_choice", "likelihood"])
def test_scores_report_no_tokens(run: Run, method: str) -> None:
    labels, cost = labelled(run, method=method)
    assert {judgement.usage for label in labels for judgement in label.judgements} == {None}
    assert cost == Usage(0, 0)


def test_a_budget_stops_the_labels_and_counts_the_gate_in_every_session(run: Run) -> None:
    settings = {"method": "votes", "votes": 1, "both_orders": False}
    before = PAIRS * 2 * 18  # of the comparisons
    answers: list[GateAnswer] = []
    limit = 1
    while len(answers) < len(gate_questions()):
        with pytest.raises(BudgetSpent, match=f"continue {STAGE}"):
            labelled(run, before + limit, **settings)
        answers = run.rows(STAGE, GateAnswer, "gate.jsonl")
        gate = sum(sum(usage(x)) for x in answers)
        # Only the first question may pass the limit, to learn what one costs, and then the first label.
        assert gate <= limit or len(answers) == 1
        assert len(run.rows(STAGE, PreferenceLabel)) <= (gate < limit)
        limit += 200
    assert limit > 1_000  # so that the gate was stopped more than once
    (run.stage(STAGE) / "records.jsonl").unlink()
    with pytest.raises(BudgetSpent):
        labelled(run, before + gate + 1, **settings)
    (first,) = run.rows(STAGE, PreferenceLabel)  # which may pass the limit, to learn what one costs
    each = sum(usage(first))
    with pytest.raises(BudgetSpent):
        labelled(run, before + gate + 3 * each, **settings)
    partial = run.rows(STAGE, PreferenceLabel)
    assert 1 < len(partial) < PAIRS
    labels, cost = labelled(run, before + gate + 2 * PAIRS * each, **settings)
    assert len(labels) == PAIRS
    assert sum(cost) == gate + sum(sum(usage(label)) for label in labels)


def test_answers_of_the_gate_that_fail_cost_what_they_cost(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Thinking(ScriptedModel):
        asks = 0

        async def generate(self, context: Context, sampling: Sampling) -> Completion:
            self.asks += 1
            if self.asks > 3:
                return await super().generate(context, sampling)
            error = OnlyThought("thought, and gave no answer")
            error.tokens = (1_000, 100)
            raise error

    @contextmanager
    def loaded(self: Job, name: str, stage: str) -> Iterator[CountedModel]:
        yield counted(Thinking(say=lambda context: "(A)"))

    monkeypatch.setattr(Job, "loaded", loaded)
    labels, cost = labelled(run, method="votes", votes=1, both_orders=False)
    gate = run.rows(STAGE, GateAnswer, "gate.jsonl")
    assert len(gate) == len(gate_questions()) - 3
    records = [usage(x) for x in (*labels, *gate)]
    assert cost == Usage(3_000 + sum(u.prompt_tokens for u in records), 300 + len(records))
