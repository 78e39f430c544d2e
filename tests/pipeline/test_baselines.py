"""The baselines as recipes: RLHF without AI feedback, RLCD, distillation and the prompted start (OV-4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from constitutional_ai.constitutions.constitution import load_constitution
from constitutional_ai.constitutions.in_context import as_instructions
from constitutional_ai.errors import InputError
from constitutional_ai.estimate.count_work import count_work
from constitutional_ai.evaluation.candidates import find_candidates
from constitutional_ai.models import load
from constitutional_ai.models.scripted import ScriptedModel, scripted
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Answer, Comparison, PreferenceLabel, RevisionChain
from constitutional_ai.report.contents import read_contents
from constitutional_ai.report.page.page import render
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from tests.pipeline.stand_ins import untrained
from tests.pipeline.tiny_run import make, settings

PREFIX = "\n\nSystem: "


def run_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[Run, list[str]]:
    """A run whose models say which system message they read, and whose trainings are stand-ins."""
    file = untrained(folder, monkeypatch)

    def say(context: str) -> str:
        system = context.removeprefix(PREFIX).partition("\n\nHuman:")[0] if context.startswith(PREFIX) else ""
        return f"I read {len(system)}: {system[:40]}"

    monkeypatch.setattr(
        load,
        "load_model",
        lambda name, **_: scripted("echo") if name.startswith("scripted:coin") else ScriptedModel(say=say),
    )
    asked = yaml.safe_load(file.read_text()) | {"out": str(folder / "run")}
    for section, own in changes.items():
        asked[section] = {**asked.get(section, {}), **own}
    return make(asked)


def test_rlhf_leaves_out_revisions_and_ai_feedback_and_learns_from_people(model: str, tmp_path: Path) -> None:
    asked = settings(model, tmp_path / "run", revisions={"rounds": 0}, comparisons={"per_prompt": 0})
    run, _ = make(asked, until=layout.PREFERENCE_MODEL)
    done = [stage for stage in layout.STAGES if run.manifest(stage)]
    assert done == [layout.RESPONSES, layout.SL_CAI_MODEL, layout.PREFERENCE_MODEL]
    assert run.manifest(layout.SL_CAI_MODEL).notes["sources"] == {"helpful": 8}
    assert set(run.manifest(layout.PREFERENCE_MODEL).notes["sources"]) == {"people"}


def test_rlhf_is_called_so_wherever_its_models_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = run_of(tmp_path, monkeypatch, revisions={"rounds": 0}, comparisons={"per_prompt": 0})
    labels = [one.label for one in find_candidates([str(run.folder)])]
    assert labels == ["start", "sft", "rlhf"]
    page = render(read_contents(run))
    assert "This is a baseline" in page and "it is RLHF" in page
    assert "No person labelled any answer as harmful" not in page
    card = (run.stage(layout.RL_CAI_MODEL) / layout.WEIGHTS / "README.md").read_text()
    assert "RLHF, a baseline" in card and "Feedback model" not in card


def test_personas_give_pairs_whose_better_answer_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said = run_of(
        tmp_path, monkeypatch, comparisons={"contrast": "personas", "per_prompt": 3, "max_tokens": 8}
    )
    principles = {p.name: p for p in load_constitution("default").for_likelihood}
    pairs = run.rows(layout.COMPARISONS, Comparison)
    assert len({pair.principle for pair in pairs}) > 1 and {pair.better for pair in pairs} == {"a", "b"}
    for pair in pairs:
        principle = principles[pair.principle]
        good, bad = (pair.a, pair.b) if pair.better == "a" else (pair.b, pair.a)
        assert good.text == f"I read {len(principle.upheld)}: {principle.upheld[:40]}"
        assert bad.text == f"I read {len(principle.broken)}: {principle.broken[:40]}"
        assert pair.swapped().better != pair.better
    labels = run.rows(layout.PREFERENCE_LABELS, PreferenceLabel)
    assert {(x.comparison.better, x.probability_a, x.method) for x in labels} == {
        ("a", 1.0, "contrast"),
        ("b", 0.0, "contrast"),
    }
    assert not (run.stage(layout.PREFERENCE_LABELS) / layout.GATE).exists()  # nobody was asked
    assert not any("gate" in line for line in said)
    render(read_contents(run))


def test_distillation_trains_on_what_the_prompted_start_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = run_of(
        tmp_path,
        monkeypatch,
        revisions={"style": "prompted"},
        comparisons={"contrast": "prompt", "max_tokens": 8},
        evaluation={"prompted": True},
    )
    text = as_instructions(load_constitution("default"))
    read = f"I read {len(text)}: {text[:40]}"
    chains = run.rows(layout.REVISIONS, RevisionChain)
    assert chains and all([r.revised.text for r in chain.revisions] == [read] for chain in chains)
    assert all(chain.initial.text == "I read 0: " for chain in chains)
    for pair in run.rows(layout.COMPARISONS, Comparison):
        assert {pair.better: read} == {
            side: text for side, text in (("a", pair.a.text), ("b", pair.b.text)) if text == read
        }
    answers = {(a.model, a.response.text) for a in run.rows(layout.EVALUATION, Answer)}
    assert ("prompted", read) in answers and ("start", "I read 0: ") in answers
    last = find_candidates([str(run.folder)])[-1]
    assert (last.label, last.role, last.instructions) == ("prompted", "prompted", text)
    page = render(read_contents(run))
    assert "prompted start" in page


def test_without_revisions_there_is_no_share_of_them() -> None:
    for change in (["comparisons.revised=true"], ["revisions.harmless=3"]):
        with pytest.raises(InputError, match=r"needs revisions: set revisions.rounds to 1 or more"):
            load_recipe("demo", ["revisions.rounds=0", "revisions.harmless=0", *change])
    with pytest.raises(InputError, match=r"sl_cai.helpful_share must be null, because revisions.rounds is 0"):
        load_recipe("paper", ["revisions.rounds=0"])
    with pytest.raises(InputError, match=r"preference_model.helpful_share must be null"):
        load_recipe("paper", ["comparisons.per_prompt=0"])


RLHF = {
    "out",
    "revisions.rounds",
    "sl_cai.helpful_share",
    "comparisons.per_prompt",
    "preference_model.helpful_share",
}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("rlhf-helpful", {"prompts.red_team.limit", "rl_cai.helpful_share"}),
        ("rlhf-hh", {"preference_model.helpfulness.file"}),
    ],
)
def test_the_papers_baselines_differ_from_its_method_in_what_they_leave_out(name: str, more: set[str]) -> None:
    own, paper = [flat(load_recipe(recipe).model_dump(mode="json")) for recipe in (name, "paper")]
    assert {key for key in own if own[key] != paper[key]} == RLHF | more


def test_an_estimate_counts_nothing_of_what_is_left_out() -> None:
    work = {one.stage: one.records for one in count_work(load_recipe("rlhf-helpful"))}
    assert {stage for stage, records in work.items() if not records} == {
        layout.PROMPTS,
        layout.REVISIONS,
        layout.COMPARISONS,
        layout.PREFERENCE_LABELS,
    }
    whole = count_work(load_recipe("paper", ["comparisons.contrast=prompt"]))
    (labels,) = [one for one in whole if one.stage == layout.PREFERENCE_LABELS]
    assert labels.records and not sum(labels.calls.values())  # nobody is asked


def test_a_comparison_of_earlier_runs_is_read_and_written_as_it_was() -> None:
    from constitutional_ai.runs.rows import adapter

    line = json.dumps(
        {
            "id": "1.0",
            "prompt": {"id": "1", "conversation": [], "kind": "red_team", "source": "s", "tags": []},
            "a": (
                side := {
                    "text": "a",
                    "model": "m",
                    "finish_reason": "stop",
                    "prompt_tokens": 1,
                    "completion_tokens": 1,
                }
            ),
            "b": side,
        },
        separators=(",", ":"),
    )
    read = adapter(Comparison).validate_json(line)
    assert read.better is None
    assert adapter(Comparison).dump_json(read).decode() == line
    assert Recipe().comparisons.contrast is None
