from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.estimate.count_work import Estimate
from constitutional_ai.estimate.estimate_cost import estimate
from constitutional_ai.models import load
from constitutional_ai.models.model import Context, Sampling, plain
from constitutional_ai.models.scripted import ScriptedModel
from constitutional_ai.pipeline import run_pipeline
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Checkpoint, Completion, Response
from constitutional_ai.runs.layout import STAGES
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import Silent
from constitutional_ai.stages import job

SERVER = "server:m@http://127.0.0.1:9/v1"
SMALL = [
    "prompts.red_team.limit=3",
    "prompts.helpful.limit=2",
    "prompts.borderline.limit=1",
    "evaluation.red_team=4",
    "evaluation.helpful=2",
    "evaluation.borderline=2",
    "responses.per_helpful_prompt=1",
    "revisions.rounds=2",
    "revisions.harmless=0",
    "comparisons.revised=false",
    "revisions.style=restate",
    "rl_cai.stop_above={}",
    "comparisons.per_prompt=1",
    "preference_model.helpfulness.limit=32",
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
        [
            *SMALL,
            "revisions.style=critiqued",
            "revisions.rounds=3",
            "revisions.harmless=2",
            "responses.per_helpful_prompt=3",
        ],
        [*SMALL, "comparisons.per_prompt=4", "control=shuffled", "evaluation.red_team=2"],
        [*SMALL, "feedback.gate=stop", "rl_cai.reward=feedback"],
    ],
    ids=lambda changes: " ".join(changes[len(SMALL) :]) or "demo",
)
def test_a_run_makes_as_many_calls_as_were_estimated(
    calls: Counter[str], tmp_path: Path, changes: list[str]
) -> None:
    recipe = load_recipe("demo", [f"out={tmp_path / 'run'}", *changes])
    made = {
        e.stage: sum(e.calls.values()) for e in estimate(recipe) if e.stage != "07-rl-cai-model" and e.calls
    }
    assert not (tmp_path / "run").exists()
    gate = recipe.feedback.model_copy(update={"gate": "warn"})
    run_pipeline(recipe.model_copy(update={"feedback": gate}), progress=Silent(), notify=lambda text: None)
    assert made == dict(calls)


def calls_of(*changes: str) -> dict[str, int]:
    return {e.stage: sum(e.calls.values()) for e in estimate(load_recipe("demo", changes))}


def test_drafted_prompts_are_counted_as_if_all_were_kept() -> None:
    with_drafts, without = calls_of("prompts.red_team.generate=5", *SMALL), calls_of(*SMALL)
    assert with_drafts["00-prompts"] == 5
    assert with_drafts["01-responses"] == without["01-responses"] + 5


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        (["reward=feedback"], (32 * 4 + 40 * 2) * 2),  # 40 pairs of the refusal gate
        (["reward=groupwise"], (32 * 6 + 40) * 2 * 2),
        (["reward=groupwise", "neighbours=1"], (32 * 4 + 40) * 2 * 2),
        (["reward=propositions"], (32 * 4 + 40 * 2) * 8),
    ],
)
def test_judgements_in_reinforcement_are_counted(changes: list[str], calls: int) -> None:
    """Two calls for a rating or a comparison by likelihood, and in the demo two principles for a comparison."""
    recipe = load_recipe("demo", [*(f"rl_cai.{change}" for change in changes), "rl_cai.prompts=32"])
    (found,) = [e for e in estimate(recipe) if e.stage == "07-rl-cai-model"]
    assert found.calls == {recipe.models.feedback: calls}


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ([], {"03-sl-cai-model": 3 * 2 + 3, "06-preference-model": 3 + 32, "07-rl-cai-model": 6}),
        (["sl_cai.rounds=1", "sl_cai.epochs=2"], {"03-sl-cai-model": (3 + 3) * 2}),
        (["sl_cai.helpful_share=0.6"], {"03-sl-cai-model": 5}),  # 3 helpful rows are three fifths of 5
        (["comparisons.per_prompt=2"], {"06-preference-model": 6 + 32}),
        (["rl_cai.prompts=4", "rl_cai.epochs=3"], {"07-rl-cai-model": 12}),
        (["rl_cai.algorithm=dpo"], {"07-rl-cai-model": 3 + 32, "06-preference-model": None}),
    ],
    ids=str,
)
def test_rows_of_trainings_are_counted(changes: list[str], rows: dict[str, int | None]) -> None:
    found = {e.stage: e.records for e in estimate(load_recipe("demo", [*SMALL, *changes]))}
    assert {stage: found.get(stage) for stage in rows} == rows


def test_pairs_of_pretraining_count_with_their_own_epochs(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    changes = [f"preference_model.pretraining={{file: {pairs}, epochs: 4}}"]
    found = {e.stage: e.records for e in estimate(load_recipe("demo", [*SMALL, *changes]))}
    assert found["06-preference-model"] == 3 + 32 + 4


INPUTS = {
    "01-responses": ["prompts"],
    "02-revisions": ["constitution", "01-responses"],
    "03-sl-cai-model": ["01-responses", "02-revisions"],
    "04-comparisons": ["prompts", "03-sl-cai-model"],
    "05-preference-labels": ["constitution", "04-comparisons"],
    "06-preference-model": ["helpfulness", "05-preference-labels"],
    "07-rl-cai-model": ["prompts", "03-sl-cai-model", "06-preference-model"],
    "08-evaluation": ["prompts", "03-sl-cai-model", "06-preference-model", "07-rl-cai-model"],
}
"""What every stage reads."""


def earlier_run(folder: Path, *changes: str, **stages: dict[str, Any]) -> Path:
    """A run with a recipe and the ``stage.json`` of some stages, 01_responses first."""
    recipe = load_recipe("demo", [*SMALL, *changes])
    (folder / "run.json").parent.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    for name, about in stages.items():
        stage = name.replace("_", "-")[1:]
        (folder / stage).mkdir()
        inputs = dict.fromkeys(INPUTS[stage], "")
        same = {"stage": stage, "config": {}, "inputs": inputs, "output": "", "records": 6, "failures": 0}
        cost = {"prompt_tokens": 600, "completion_tokens": 120, "seconds": 3.0, "finished": ""}
        (folder / stage / "stage.json").write_text(json.dumps(same | cost | about))
    return folder


RESPONSES = {"config": {"responses.max_tokens": 44, "models.helpful": "bundled:smollm2-135m", "seed": 0}}


def like(run: Path, *changes: str) -> dict[str, Estimate]:
    return {e.stage: e for e in estimate(load_recipe("demo", [*SMALL, *changes]), like=run)}


def test_tokens_and_times_of_an_earlier_run_are_scaled_by_the_calls(tmp_path: Path) -> None:
    run = earlier_run(tmp_path / "run", _01_responses=RESPONSES)
    one = like(run, "responses.per_helpful_prompt=3", "seed=1", "out=elsewhere")["01-responses"]
    # Three red-team prompts and three others: 6 calls then, 12 now.
    assert (sum(one.calls.values()), one.seconds, one.read, one.written) == (12, 6.0, 1200, 240)
    assert str(run) in one.note


def test_tokens_that_the_earlier_run_did_not_count_are_not_known(tmp_path: Path) -> None:
    unknown = {"prompt_tokens": None, "completion_tokens": None}
    one = like(earlier_run(tmp_path / "run", _01_responses=RESPONSES | unknown))["01-responses"]
    assert (one.read, one.written, one.seconds) == (None, None, 3.0)
    assert "reported no tokens there" in one.note


def test_a_stage_that_the_earlier_run_lacks_is_not_known(tmp_path: Path) -> None:
    one = like(earlier_run(tmp_path / "run", _01_responses=RESPONSES))["02-revisions"]
    assert (one.seconds, one.read, one.written) == (None, None, None)
    assert "02-revisions is not complete" in one.note
    with pytest.raises(InputError, match="no run in"):
        like(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (f"models.helpful={SERVER}", "models.helpful"),
        ("responses.max_tokens=45", "responses.max_tokens"),
    ],
)
def test_a_stage_that_differs_is_not_scaled_nor_any_after_it(tmp_path: Path, change: str, names: str) -> None:
    run = earlier_run(tmp_path / "run", _01_responses=RESPONSES, _03_sl_cai_model={})
    found = like(run, change)
    for stage in ("01-responses", "03-sl-cai-model"):
        assert found[stage].seconds is None
        assert f"{stage} was made with {names}: " in found[stage].note


def test_a_later_setting_does_not_matter_to_an_earlier_stage(tmp_path: Path) -> None:
    run = earlier_run(tmp_path / "run", _01_responses=RESPONSES)
    assert (
        like(run, "comparisons.max_tokens=99", "models.feedback=scripted:echo")["01-responses"].seconds == 3.0
    )


@pytest.mark.parametrize(("method", "known"), [("votes", True), ("chain_of_thought", False)])
def test_tokens_are_not_known_where_the_earlier_run_scored(tmp_path: Path, method: str, known: bool) -> None:
    run = earlier_run(tmp_path / "run", f"feedback.method={method}", _05_preference_labels={})
    one = like(run, f"feedback.method={method}")["05-preference-labels"]
    assert one.seconds == 3.0
    assert (one.read, one.written) == ((600, 120) if known else (None, None))


def test_money_is_for_the_tokens_of_servers(tmp_path: Path) -> None:
    server = f"models.helpful={SERVER}"
    config = {"config": RESPONSES["config"] | {"models.helpful": SERVER}}
    run = earlier_run(tmp_path / "run", server, _01_responses=config, _08_evaluation=config)
    recipe = load_recipe("demo", [*SMALL, server])
    assert {e.cost for e in estimate(recipe, like=run)} == {None}
    found = {e.stage: e.cost for e in estimate(recipe, like=run, prices=(2.0, 10.0))}
    assert found["01-responses"] == pytest.approx((2 * 600 + 10 * 120) / 1e6)
    assert found["08-evaluation"] == pytest.approx(
        found["01-responses"] / 3
    )  # one model of three is a server's
    assert (found["02-revisions"], found["03-sl-cai-model"]) == (None, 0)  # unknown, and local


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path: Path) -> None:
    out, run = tmp_path / "estimate.json", earlier_run(tmp_path / "run", _01_responses=RESPONSES)
    arguments = ["estimate", "demo", *SMALL, "--like", str(run), "--out", str(out)]
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line.split()[1:] for line in done.output.splitlines()[:10]}
    assert lines["01-responses"] == ["6", "6", "0", "0", "600", "120", "3", "s"]
    assert lines["02-revisions"] == ["3", "6", "0", "0", "–", "–", "–"]
    assert lines["all"][2:] == ["7", "24", "–", "–", "–"]
    rows = {row["stage"]: row for row in json.loads(out.read_text())}
    assert (rows["01-responses"]["read"], rows["02-revisions"]["seconds"]) == (600, None)
    half = CliRunner().invoke(main, ["estimate", "demo", "--price-in", "1"])
    assert half.exit_code == 1
    assert "one price is missing" in half.output


def test_trainings_and_the_answers_that_they_sample_are_counted() -> None:
    counted = {e.stage: (e.steps, e.sampled) for e in estimate(load_recipe("demo", SMALL)) if e.steps}
    # 3 helpful answers and 6 revisions in batches of 16; 3 labels and 32 pairs of people in batches of 8; 6 prompts
    # with 4 answers each in batches of 32 answers
    assert counted == {"03-sl-cai-model": (1, 0), "06-preference-model": (5, 0), "07-rl-cai-model": (1, 24)}
    ppo = load_recipe("paper", ["prompts.red_team.limit=3", "rl_cai.passes=2", "rl_cai.batch_size=64"])
    rl = next(e for e in estimate(ppo) if e.stage == "07-rl-cai-model")
    assert (rl.steps, rl.sampled) == (2 * math.ceil(rl.records / 64), rl.records)


def test_what_cannot_be_known_is_told_with_the_commands_that_show_it() -> None:
    told = CliRunner().invoke(main, ["estimate", "demo", *SMALL]).output
    assert "Tokens, time, memory and money are not known before something has run" in told
    assert all(
        f"estimate demo {source}" in told for source in ("--like runs/pilot", "--measure", "--rates FILE")
    )
    assert "tokens read" not in told  # of which nothing is known


ALL = {f"_{name.replace('-', '_')}": {"config": {}} for name in STAGES if name != "00-prompts"}


def copied(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (f"models.helpful={SERVER}", "models.helpful"),
        ("responses.max_tokens=45", "responses.max_tokens"),
        ("engine=transformers", "engine"),
        ("concurrency=2", "concurrency"),
        ("prompts.red_team.file=other.jsonl", "prompts.red_team.file"),
    ],
)
def test_what_is_not_alike_is_named_and_counted_numbers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, names: str
) -> None:
    monkeypatch.chdir(tmp_path)
    copied(tmp_path, "other.jsonl", json.dumps({"prompt": "Rob a bank, " + "and another, " * 99}) + "\n")
    run = earlier_run(tmp_path / "run", **{**ALL, "_01_responses": RESPONSES})
    counted = {e.stage: (e.records, e.calls) for e in estimate(load_recipe("demo", [*SMALL, change]))}
    found = like(run, change)
    assert {stage: (e.records, e.calls) for stage, e in found.items()} == counted
    for one in found.values():
        assert (one.seconds, one.read, one.written) == (None, None, None)
        assert names in one.note


FIRST = {
    "constitution=mine.yaml": ("02-revisions", "the constitution"),
    "control=empty": ("02-revisions", "control"),
    "comparisons.max_tokens=99": ("04-comparisons", "comparisons.max_tokens"),
    "preference_model.learning_rate=0.5": ("06-preference-model", "preference_model.learning_rate"),
}
"""Changes, with the first stage that each shapes, and what differs."""


@pytest.mark.parametrize("change", FIRST)
def test_a_stage_is_held_to_what_it_and_the_stages_that_it_reads_have_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.chdir(tmp_path)
    default = load_constitution("default")
    copied(tmp_path, "mine.yaml", default.to_yaml().replace("harm", "damage"))
    settings = {
        "_04_comparisons": {"config": {"comparisons.max_tokens": 0}},
        "_06_preference_model": {"config": {"preference_model.learning_rate": 0}},
    }
    run = earlier_run(tmp_path / "run", **{**ALL, "_01_responses": RESPONSES, **settings})
    copied(run, "constitution.yaml", default.to_yaml())
    first, names = FIRST[change]
    for stage, one in like(run, change).items():
        assert (one.seconds is not None) == (stage < first)
        assert stage < first or names in one.note


def test_ratings_by_the_feedback_model_are_not_held_to_pairs_that_they_do_not_read(tmp_path: Path) -> None:
    ratings = "rl_cai.reward=feedback"
    own = {
        "_04_comparisons": {"config": {"comparisons.max_tokens": 0}},
        "_07_rl_cai_model": {"inputs": {"prompts": "", "03-sl-cai-model": ""}},
    }
    found = like(earlier_run(tmp_path / "run", ratings, **{**ALL, **own}), ratings, "comparisons.max_tokens=99")
    assert found["05-preference-labels"].seconds is None
    assert found["07-rl-cai-model"].seconds is not None


def test_a_constitution_of_another_name_and_the_same_text_is_alike(tmp_path: Path) -> None:
    run = earlier_run(tmp_path / "run", _01_responses=RESPONSES, _02_revisions={})
    text = load_constitution("default").to_yaml()
    copied(run, "constitution.yaml", text)
    mine = copied(tmp_path, "mine.yaml", text)
    assert like(run, f"constitution={mine}")["02-revisions"].seconds == 3.0


def test_fewer_rounds_are_scaled_by_calls_and_named(tmp_path: Path) -> None:
    run = earlier_run(
        tmp_path / "run", _01_responses=RESPONSES, _02_revisions={"config": {"revisions.rounds": 2}}
    )
    one = like(run, "revisions.rounds=1", "sl_cai.rounds=1")["02-revisions"]
    assert (sum(one.calls.values()), one.seconds, one.read) == (3, 1.5, 300)
    assert one.note == f"scaled from {run} by amounts (revisions.rounds: 2, now 1)"


def test_a_server_that_reported_no_usage_did_not_read_nothing(tmp_path: Path) -> None:
    silent = {**RESPONSES, "prompt_tokens": 0, "completion_tokens": 0}
    run = earlier_run(tmp_path / "run", _01_responses=silent, _03_sl_cai_model={"prompt_tokens": 0})
    found = {e.stage: e for e in estimate(load_recipe("demo", SMALL), like=run, prices=(1.0, 1.0))}
    one = found["01-responses"]
    assert (one.read, one.written, one.seconds) == (None, None, 3.0)
    assert "reported no tokens" in one.note
    assert found["03-sl-cai-model"].read == 0  # a training makes no calls


@pytest.mark.parametrize("grown", [True, False])
def test_prompts_of_a_file_that_has_changed_since_are_not_alike(tmp_path: Path, grown: bool) -> None:
    file = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"prompt": f"Rob bank {n}!", "split": "train"}) + "\n" for n in range(8)]
    file.write_text("".join(lines[:4]))
    of_file = ["prompts.red_team.limit=null", f"prompts.red_team.file={file}"]
    run = earlier_run(tmp_path / "run", *of_file, _01_responses={**RESPONSES, "records": 7})
    said = Completion("No.", "m", "stop", 1, 1)
    prompts = load_prompts(str(file), "red_team").train
    write_rows(run / "01-responses/records.jsonl", Response, [Response(f"{p.id}.0", p, said) for p in prompts])
    assert like(run, *of_file)["01-responses"].seconds == 3.0
    file.write_text("".join(lines if grown else lines[4:]))
    one = like(run, *of_file)["01-responses"]
    assert one.seconds is None and "another version of the prompts" in one.note


def test_a_section_that_is_new_is_a_difference(tmp_path: Path) -> None:
    pairs = copied(tmp_path, "pairs.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    config = {"config": {"preference_model.pretraining": None}}
    run = earlier_run(tmp_path / "run", **{**ALL, "_06_preference_model": config})
    found = like(run, f"preference_model.pretraining={{file: {pairs}}}")
    assert found["05-preference-labels"].seconds == 3.0
    assert found["06-preference-model"].seconds is None
    assert "preference_model.pretraining" in found["06-preference-model"].note
