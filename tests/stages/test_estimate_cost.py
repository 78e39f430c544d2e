from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.models import load
from constitutional_ai.models.model import Context, Sampling, plain
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import PIPELINE, run_pipeline
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Checkpoint, Completion
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import Silent
from constitutional_ai.stages import job
from constitutional_ai.stages.estimate_cost import CountingModel, estimate

SERVER = "server:m@http://127.0.0.1:9/v1"
SMALL = [
    "prompts.red_team.limit=3",
    "prompts.helpful.limit=2",
    "prompts.borderline.limit=1",
    "evaluation.red_team=4",
    "evaluation.helpful=2",
    "evaluation.borderline=2",
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often models are asked in which stage of a run whose models are scripted and whose trainings do nothing."""
    counted: Counter[str] = Counter()
    now = [""]

    class Counting(ScriptedModel):
        async def generate(self, context: Context, sampling: Sampling) -> Completion:
            counted[now[0]] += 1
            said = f"(A) I would not, and {sampling.seed} is why."
            return Completion(said, "m", "stop", len(plain(context)) if isinstance(context, tuple) else 1, 1)

        async def score(self, context: Context, continuations: Sequence[str]) -> list[float]:
            counted[now[0]] += 1
            return await super().score(context, continuations)

    make_rows = Run.make_rows

    def rows(self: Run, stage: str, *args: Any, **how: Any) -> Any:
        now[0] = stage
        return make_rows(self, stage, *args, **how)

    def no_training(self: Run, stage: str, train: Any, *, config: Any, inputs: Any) -> None:
        make_model(
            self, stage, lambda folder: Trained(Checkpoint("", "b", "d"), 1), config=config, inputs=inputs
        )

    make_model = Run.make_model

    class NoReward:
        def __init__(self, folder: object) -> None: ...

        async def reward(self, talk: object) -> float:
            return 0.0

    monkeypatch.setattr(Run, "make_rows", rows)
    monkeypatch.setattr(Run, "make_model", no_training)
    monkeypatch.setattr(load, "load_model", lambda name, **_: Counting())
    monkeypatch.setattr(job, "PreferenceModel", NoReward)
    return counted


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [*SMALL, "feedback.method=multiple_choice", "feedback.both_orders=false"],
        [*SMALL, "feedback.method=votes", "feedback.votes=3", "feedback.principles=all"],
        [*SMALL, "feedback.method=chain_of_thought", "feedback.chains=2", "feedback.format=plain"],
        [*SMALL, "revisions.style=critiqued", "revisions.rounds=3", "responses.per_helpful_prompt=3"],
        [*SMALL, "comparisons.per_prompt=4", "control=shuffled", "evaluation.red_team=2"],
        [*SMALL, "feedback.gate=stop", "rl_cai.reward=feedback"],
    ],
    ids=lambda changes: " ".join(changes[len(SMALL) :]) or "demo",
)
def test_a_run_makes_as_many_calls_as_were_estimated(
    calls: Counter[str], tmp_path: Path, changes: list[str]
) -> None:
    recipe = load_recipe("demo", [f"out={tmp_path / 'run'}", *changes])
    made = {e.stage: e.calls for e in estimate(recipe, PIPELINE) if e.stage != "07-rl-cai-model" and e.calls}
    assert not (tmp_path / "run").exists()
    gate = recipe.feedback.model_copy(update={"gate": "warn"})
    run_pipeline(recipe.model_copy(update={"feedback": gate}), progress=Silent(), notify=lambda text: None)
    assert made == dict(calls)


def test_drafted_prompts_are_counted_as_if_all_were_kept() -> None:
    wanted = ["prompts.red_team.generate=5", "generation.shots=2", *SMALL]
    with_drafts, without = (
        {e.stage: e.calls for e in estimate(load_recipe("demo", w), PIPELINE)} for w in (wanted, SMALL)
    )
    assert with_drafts["00-prompts"] == 5
    assert with_drafts["01-responses"] == without["01-responses"] + 5


def test_snapshots_answer_in_the_evaluation_too() -> None:
    wanted = ["rl_cai.snapshot_every=16", "rl_cai.epochs=2", "evaluation.snapshots=true"]
    with_snapshots, without = (
        {e.stage: e.calls for e in estimate(load_recipe("demo", changes), PIPELINE)} for changes in (wanted, [])
    )
    # 32 prompts, seen twice, with a snapshot after every 16: four models more than the three of a run.
    assert 3 * with_snapshots["08-evaluation"] == 7 * without["08-evaluation"]


def test_ratings_in_reinforcement_are_counted() -> None:
    recipe = load_recipe("demo", ["rl_cai.reward=feedback"])
    (found,) = [e for e in estimate(recipe, PIPELINE) if e.stage == "07-rl-cai-model"]
    assert (found.model, found.calls) == (recipe.models.feedback, 32 * 4 * 2)


def test_a_note_says_that_tokens_are_counted_by_letters() -> None:
    recipe = load_recipe("demo", [f"models.helpful={SERVER}", *SMALL])
    found = {e.stage: e for e in estimate(recipe, PIPELINE)}
    assert any("4 letters" in note for note in found["01-responses"].notes)


def test_a_server_reads_a_context_again_for_each_continuation() -> None:
    import asyncio

    model = CountingModel(SERVER)
    asyncio.run(model.score("x" * 39, ["a" * 4]))
    assert (model.calls, model.read, model.written) == (1, 2 * 10 + 2, 2)


def test_money_is_what_servers_are_asked_and_nothing_without_prices() -> None:
    recipe = load_recipe("demo", [f"models.helpful={SERVER}", *SMALL])
    assert {e.cost for e in estimate(recipe, PIPELINE)} == {None}
    found = {e.stage: e for e in estimate(recipe, PIPELINE, prices=(2.0, 10.0))}
    one = found["01-responses"]
    assert one.written == 6 * 44
    assert one.cost == pytest.approx((2 * one.read + 10 * one.written) / 1e6)
    assert found["05-preference-labels"].cost == 0
    assert found["03-sl-cai-model"].cost is None


def test_time_is_unknown_until_it_is_measured() -> None:
    assert {e.seconds for e in estimate(load_recipe("demo", SMALL), PIPELINE)} == {None}


def finished(folder: Path, **stage: Any) -> Path:
    (folder / "01-responses").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    about = {
        "stage": "01-responses",
        "config": {},
        "inputs": {},
        "output": "",
        "records": 4,
        "failures": 0,
        "prompt_tokens": 400,
        "completion_tokens": 80,
        "seconds": 2.0,
        "finished": "",
    }
    (folder / "01-responses" / "stage.json").write_text(json.dumps(about | stage))
    return folder


def test_times_and_tokens_of_an_earlier_run_are_taken_for_each_record(tmp_path: Path) -> None:
    like = finished(tmp_path / "run")
    found = {e.stage: e for e in estimate(load_recipe("demo", SMALL), PIPELINE, like=like)}
    one = found["01-responses"]
    assert (one.records, one.seconds, one.read, one.written) == (6, 3.0, 600, 120)
    assert found["02-revisions"].seconds is None
    with pytest.raises(InputError, match="no run in"):
        estimate(load_recipe("demo", SMALL), PIPELINE, like=tmp_path / "nothing")


@pytest.mark.parametrize(("method", "as_then"), [("votes", True), ("chain_of_thought", False)])
def test_what_an_earlier_run_read_is_not_taken_where_it_scored_too(
    tmp_path: Path, method: str, as_then: bool
) -> None:
    """Nobody counted what its scores read."""
    stage = "05-preference-labels"
    like = finished(tmp_path / "run")
    (like / "01-responses").rename(like / stage)
    recipe = load_recipe("demo", [*SMALL, f"feedback.method={method}"])
    alone, found = (
        next(e for e in estimate(recipe, PIPELINE, like=run) if e.stage == stage) for run in (None, like)
    )
    assert found.written == 20 * found.records
    assert found.read == (100 * found.records if as_then else alone.read)


def test_models_are_measured_on_the_recipes_own_requests(tiny_long: str) -> None:
    named = [f"models.{role}={tiny_long}" for role in ("helpful", "pretrained", "feedback")]
    found = {e.stage: e for e in estimate(load_recipe("demo", [*named, *SMALL]), PIPELINE, measure=True)}
    for stage in ("01-responses", "02-revisions", "04-comparisons", "05-preference-labels", "08-evaluation"):
        assert found[stage].seconds is not None
        assert 0 < found[stage].seconds < 600
        assert any("measured" in note for note in found[stage].notes)
    assert found["03-sl-cai-model"].seconds is None


@pytest.fixture(scope="module")
def tiny_long(make_tiny: Any) -> str:
    return f"hf:{make_tiny(max_position_embeddings=4096)}"


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path: Path) -> None:
    out = tmp_path / "estimate.json"
    done = CliRunner().invoke(main, ["estimate", "demo", *SMALL, "--out", str(out)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "02-revisions" in done.output
    assert "not known" in done.output
    rows = {row["stage"]: row for row in json.loads(out.read_text())}
    assert (rows["02-revisions"]["calls"], rows["02-revisions"]["seconds"]) == (6, None)
    half = CliRunner().invoke(main, ["estimate", "demo", "--price-in", "1"])
    assert half.exit_code == 1
    assert "one price is missing" in half.output
