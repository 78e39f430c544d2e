"""``cai evaluate``, whole: through the command line, on scripted models and on a tiny one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from constitutional_ai.cli import main
from constitutional_ai.cli.evaluate import PARTS as NAMES
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.candidates import choose_anchor
from constitutional_ai.evaluation.finished import NAMES as NAMES_OF_METRICS
from constitutional_ai.evaluation.finished import finished_metrics, part_of, unfinished_parts
from constitutional_ai.evaluation.harm_questions import HARMFUL_OR_ETHICAL, KIND_OF_HARM
from constitutional_ai.evaluation.parts import PARTS, read_metrics, read_models, warnings
from constitutional_ai.evaluation.suite import evaluation_prompts, judge_settings, open_evaluation
from constitutional_ai.records import Candidate, Completion, Metric, Response
from constitutional_ai.runs.rows import write_rows
from constitutional_ai.runs.runner import Silent
from tests.evaluation.suites import PROMPTS, suite_of
from tests.evaluation.test_candidates import SL, a_run
from tests.evaluation.test_harm_identification import row as harm_row
from tests.evaluation.test_hhh_accuracy import row as hhh_row


def cai(*words: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, words)], env={"COLUMNS": "120"})


def test_the_command_line_knows_every_part() -> None:
    assert tuple(PARTS) == NAMES


@pytest.mark.parametrize("part", ["answers", "hhh", "harm"])
def test_a_part_alone_is_measured_and_shown(tmp_path: Path, part: str) -> None:
    out = tmp_path / "out"
    result = cai("me=scripted:echo", "--part", part, "--limit", 2, "--out", out)
    assert result.exit_code == 0, result.output
    metrics = read_metrics(out)
    assert metrics and {m.model for m in metrics} == {"me"}
    assert json.loads((out / "metrics.json").read_text()) == json.loads(
        (out / part / "metrics.json").read_text()
    )
    assert read_models(out) == [Candidate("me", "scripted:echo", "me")]
    assert "not measured" in result.output  # of the hhh questions, all answers are ties
    for name in {m.name for m in metrics}:
        assert name in result.output


def test_what_was_not_measured_is_null_in_the_file(tmp_path: Path) -> None:
    cai("me=scripted:echo", "--part", "harm", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "out/metrics.json").read_text())
    assert len(rows) == 18
    assert {(r["value"], r["low"], r["high"], r["count"]) for r in rows} == {(None, None, None, 0)}


def test_parts_add_up_and_a_part_can_be_made_anew(tmp_path: Path) -> None:
    words = ["me=scripted:echo", "--limit", 2, "--out", tmp_path / "out"]
    assert cai(*words, "--part", "hhh").exit_code == 0
    assert cai(*words, "--part", "answers").exit_code == 0
    names = [m.name for m in read_metrics(tmp_path / "out")]
    assert names.index("objection_rate") < names.index("gate_accuracy.multiple_choice")
    changed = cai(*words, "--part", "answers", "--samples", 2)
    assert changed.exit_code == 1
    assert (
        "made with samples: 1, the command now says 2. Pass --redo answers, or name another folder"
        in changed.output
    )
    assert cai(*words, "--part", "answers", "--samples", 2, "--redo", "answers").exit_code == 0
    counts = {m.name: m.count for m in read_metrics(tmp_path / "out")}
    assert (counts["objection_rate"], counts["gate_ties.multiple_choice"]) == (4, 2)


def test_a_step_of_a_part_can_be_made_anew_and_a_part_takes_its_steps_with_it(tmp_path: Path) -> None:
    for redo, left in (("answers/pm-x", {"answers", "answers/pm-xy", "hhh"}), ("answers", {"hhh"})):
        folder = tmp_path / redo.replace("/", "-")
        with open_evaluation(folder, Silent()) as run:
            for stage in ("answers", "answers/pm-x", "answers/pm-xy", "hhh"):
                run.stage(stage).mkdir(parents=True)
            run.write_started_stages(
                {s: {"config": {}, "inputs": {}} for s in ("answers", "answers/pm-x", "answers/pm-xy", "hhh")}
            )
        with open_evaluation(folder, Silent(), redo) as run:
            assert set(json.loads((folder / "run.json").read_text())["stages"]) == left
            assert {s for s in left if not run.stage(s).is_dir()} == set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gpt"], "unknown model 'gpt'"),
        (["scripted:echo"], "choose a folder for the results: --out FOLDER"),
        (["scripted:echo", "--out", "x", "--redo", "elo"], "'elo' is not a part"),
        (["scripted:echo", "--out", "x", "--pm", "kind"], "'kind' is not NAME=FOLDER"),
        (["scripted:echo", "--out", "x", "--pm", "../a=b"], "is not NAME=FOLDER"),
        (["scripted:echo", "--out", "x", "--pm", "a=b", "--pm", "a=c"], "two preference models are called 'a'"),
        (
            ["scripted:echo", "--out", "x", "--pm", "kind=nowhere"],
            "neither a run nor the folder of a preference model",
        ),
        (["scripted:echo", "--out", "x", "--paper", "nowhere"], "Directory 'nowhere' does not exist"),
        (["scripted:echo", "--out", "x", "--prompts", "nowhere"], "no file 'nowhere'"),
        (["scripted:echo", "--out", "x", "--turns", "2"], "--turns needs a model that writes"),
        (["scripted:echo", "--out", "x", "--anchor", "me"], "no model is called 'me'. Set --anchor"),
        (["scripted:echo", "--out", "x", "--judge", "gpt"], "unknown model 'gpt'"),
        (["scripted:echo", "--out", "x", "--human", "gpt"], "unknown model 'gpt'"),
        (["scripted:echo", "--out", "x", "--set", "methods=votes"], "unknown key 'methods'"),
        (["scripted:echo", "--out", ".git"], "Name another place with --out"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").touch()
    result = cai(*words)
    assert result.exit_code in (1, 2)
    assert says in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output


def test_a_run_is_evaluated_inside_itself(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", stages=())
    assert cai(run, "--part", "answers", "--limit", 1).exit_code == 0
    assert {m.model for m in read_metrics(run / "evaluation")} == {"start"}
    into_it = cai(run, "--part", "answers", "--out", run)
    assert f"{run} is a run. Name a folder in it" in into_it.output
    two = cai(run, a_run(tmp_path / "other", stages=()), "--part", "answers")
    assert "--out FOLDER" in two.output


def test_an_evaluation_is_for_one_process_and_its_folder_is_known_from_the_start(tmp_path: Path) -> None:
    with open_evaluation(tmp_path / "out", Silent()) as run:
        (tmp_path / "out/models.json").touch()  # written first; a kill may leave no more
        assert (run.settings_source, run.remedy.format(stage="hhh")[:18]) == (
            "the command",
            "Pass --redo hhh, o",
        )
        with (
            pytest.raises(InputError, match="or name another place with --out"),
            open_evaluation(tmp_path / "out", Silent()),
        ):
            pass
    with open_evaluation(tmp_path / "out", Silent()):
        pass


def test_our_own_prompts_are_the_held_out_ones_and_a_file_is_asked_whole(tmp_path: Path) -> None:
    own = evaluation_prompts(None, None, 0)
    for kind, prompts in own.items():
        assert {p.id for p in prompts} == {p.id for p in load_prompts("built-in", kind).held_out}
    file = tmp_path / "mine.jsonl"
    lines: list[dict[str, Any]] = [
        {"prompt": "Rob it!", "split": "train"},
        {"prompt": "Rob her!", "split": "held_out"},
        {"conversation": [{"role": "user", "content": "Boil eggs."}], "kind": "helpful"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluation_prompts(file, None, 0)
    assert {kind: len(prompts) for kind, prompts in found.items()} == {
        "red_team": 2,
        "helpful": 1,
        "borderline": 0,
    }
    assert {kind: len(prompts) for kind, prompts in evaluation_prompts(file, 1, 0).items()} == {
        "red_team": 1,
        "helpful": 1,
        "borderline": 0,
    }


def test_the_judge_is_as_named_or_as_the_run_says_or_nobody(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", stages=())
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(
        text.replace("method: multiple_choice", "method: votes").replace(
            "feedback: bundled:smollm2-135m", "feedback: scripted:asks-back"
        )
    )
    judge, how = judge_settings([run], None, ["votes=3"])
    assert (judge, how.method, how.votes) == ("scripted:asks-back", "votes", 3)
    judge, how = judge_settings([run], "scripted:echo", [])
    assert (judge, how.method) == ("scripted:echo", "multiple_choice")  # the run's settings are for its own
    assert judge_settings([], None, [])[0] is None


def test_the_anchor_is_sl_cai_or_the_first() -> None:
    start, sl, rl = (
        Candidate(label, "scripted:echo", label.partition("@")[0]) for label in ("start", "sl-cai", "rl-cai@4")
    )
    assert choose_anchor([start, rl, sl], None) == "sl-cai"
    assert choose_anchor([start, rl], None) == "start"
    assert choose_anchor([start, rl], "rl-cai@4") == "rl-cai@4"


def test_a_preference_model_of_the_ais_labels_is_no_witness(tmp_path: Path) -> None:
    pms = {}
    for name, learned_from in (("own", "05-preference-labels"), ("people's", "pairs of people")):
        stage = a_run(tmp_path / name, stages=("06-preference-model",)) / "06-preference-model"
        manifest = json.loads((stage / "stage.json").read_text())
        (stage / "stage.json").write_text(json.dumps({**manifest, "inputs": {learned_from: "0"}}))
        pms[name] = stage / "model"
    with open_evaluation(tmp_path / "out", Silent()) as run:
        assert list(warnings(suite_of(run, "x", preference_models={**pms, "other": tmp_path}))) == [
            "preference model 'own' learned from the AI's labels, and RL was trained against it, so its scores are no "
            "independent evidence."
        ]


def test_the_user_is_warned_of_prompts_that_were_trained_on(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run", stages=(SL,))
    said = Completion("Hm.", "m", "stop", 1, 1)
    trained = [Response(f"{p.id}.0", p, said) for p in PROMPTS["red_team"][:2]]
    (folder / "01-responses").mkdir()
    write_rows(folder / "01-responses/records.jsonl", Response, trained)
    with open_evaluation(tmp_path / "out", Silent()) as run:
        own = (Candidate("start", "scripted:echo", "start", str(folder)),)
        assert list(warnings(suite_of(run, "x", candidates=own))) == [
            f"2 of the 9 prompts were in the training data of {folder}.",
        ]
        assert list(warnings(suite_of(run, "x"))) == []


@pytest.fixture(scope="module")
def long_tiny(make_tiny: Callable[..., Path]) -> Path:
    return make_tiny(max_position_embeddings=8192)  # a token is a byte or so: questions are long


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "paper"
    (folder / "evals").mkdir(parents=True)
    for name, lines in (
        ("438HHHEvaluations", [json.dumps(hhh_row(n)) + "\n" for n in range(3)]),
        ("HarmfulVsEthical", [harm_row(HARMFUL_OR_ETHICAL, n, n % 2) for n in range(2)]),
        ("HarmfulnessClassification", [harm_row(KIND_OF_HARM, n, n) for n in range(2)]),
    ):
        (folder / "evals" / f"{name}.jsonl").write_text("".join(lines))
    return folder


def test_a_real_model_goes_through_all_three_parts(
    tmp_path: Path, long_tiny: Path, tiny_pm: Path, copy: Path
) -> None:
    words = [f"tiny=hf:{long_tiny}", "--out", tmp_path / "out", "--paper", copy, "--limit", 2, "--samples", 2]
    words += ["--max-tokens", 6, "--set", "max_tokens=6", "--pm", f"kind={tiny_pm}", "--temperature", 0.7]
    parts = ["--part", "answers", "--part", "hhh", "--part", "harm"]
    result = cai(*words, *parts)
    assert result.exit_code == 0, result.output
    metrics = {m.name: m for m in read_metrics(tmp_path / "out")}
    assert metrics["objection_rate"].count == 4
    assert metrics["pm_score.kind"].count + metrics["pm_score_benign.kind"].count == 12
    for name in ("hhh_accuracy.multiple_choice", "hhh_accuracy.preference_model", "hhh_brier"):
        assert (metrics[name].count, metrics[name].value is None) == (2, False), name
    asked = metrics["harm_classification.few_shot"]
    assert (asked.count, asked.value is None) == (2, False)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json*")}
    shutil.rmtree(tmp_path / "out" / "hhh" / "pm-kind")  # as if killed before it
    (tmp_path / "out" / "metrics.json").unlink()
    again = cai(*words, *parts)
    assert again.exit_code == 0, again.output
    after = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.json*")}
    changed = {p.relative_to(tmp_path / "out").as_posix() for p in before if after[p] != before[p]}
    assert changed <= {"hhh/pm-kind/stage.json", "run.json"}


def test_help_names_every_part() -> None:
    text = CliRunner().invoke(main, ["evaluate", "--help"]).output
    assert all(part in text for part in NAMES)


STEPS = ("hhh", "hhh/pm-kind", "matches/1-replies", "matches/2-choices", "revisions/pm-kind", "harmfulness/t0")


@pytest.mark.parametrize("step", STEPS)
def test_a_part_is_finished_when_all_its_steps_are(tmp_path: Path, step: str) -> None:
    for each in STEPS:
        (tmp_path / each).mkdir(parents=True, exist_ok=True)
        (tmp_path / each / "records.jsonl").touch()
        (tmp_path / each / "stage.json").touch()
    assert unfinished_parts(tmp_path) == ()
    (tmp_path / step / "stage.json").unlink()
    assert unfinished_parts(tmp_path) == (step.partition("/")[0],)


def test_a_part_between_its_steps_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "matches/1-choices").mkdir(parents=True)
    for name in ("records.jsonl", "stage.json"):
        (tmp_path / "matches/1-choices" / name).touch()
    assert unfinished_parts(tmp_path) == ("matches",)
    (tmp_path / "matches/metrics.json").write_text("[]")
    assert unfinished_parts(tmp_path) == ()


def test_every_metric_belongs_to_the_part_that_measures_it(tmp_path: Path) -> None:
    words = ["a=scripted:echo", "b=scripted:asks-back", "--judge", "scripted:echo", "--limit", 1]
    assert cai(*words, "--out", tmp_path / "out").exit_code == 0
    for part in (name for name in PARTS if name != "adherence"):  # which is made only when it is named
        metrics = json.loads((tmp_path / "out" / part / "metrics.json").read_text())
        assert {part_of(metric["name"]) for metric in metrics} <= {part}
        assert metrics or part == "revisions"
    assert tuple(PARTS) == tuple(NAMES_OF_METRICS)


def test_a_part_that_is_stopped_while_it_is_repeated_has_no_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["a=scripted:echo", "b=scripted:asks-back", "--judge", "scripted:echo", "--limit", 1]
    words += ["--out", tmp_path / "out"]
    assert cai(*words, "--part", "matches", "--part", "answers").exit_code == 0

    def killed(suite: object) -> list[Metric]:
        (tmp_path / "out/matches/1-replies").mkdir(parents=True)
        (tmp_path / "out/matches/1-replies/records.jsonl").touch()
        raise InputError("killed")

    monkeypatch.setitem(PARTS, "matches", killed)
    assert cai(*words, "--part", "matches", "--redo", "matches").exit_code == 1
    left = {part_of(metric.name) for metric in finished_metrics(tmp_path / "out")}
    assert left == {part_of(m.name) for m in read_metrics(tmp_path / "out")} == {"answers"}
    shown = cai(*words, "--part", "answers").output
    assert "matches: left out, because it is not finished." in shown and "elo.helpfulness" not in shown
