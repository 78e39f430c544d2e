from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import InputError
from constitutional_ai.evaluation.candidates import find_candidates, run_folders, weights_digest
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Candidate
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.rows import adapter

SL, RL = "03-sl-cai-model", "07-rl-cai-model"


def a_run(folder: Path, *, stages: tuple[str, ...] = (SL, RL), **rl_cai: Any) -> Path:
    """A run's folder as far as an evaluation looks into it, with weights of no bytes."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"name": "run", "stages": {}}')
    asked = {"batch_size": 8, "answers": 4, **rl_cai}
    recipe = Recipe.model_validate({"models": {"helpful": "scripted:echo"}, "rl_cai": asked})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    for stage in stages:
        (folder / stage / "model").mkdir(parents=True)
        (folder / stage / "model" / "config.json").write_text("{}")
        manifest = StageManifest(stage, {}, {}, "", 20, 0, 0, 0, 0.0, "")
        (folder / stage / "stage.json").write_bytes(adapter(StageManifest).dump_json(manifest))
    return folder


def steps(folder: Path, *numbers: int) -> None:
    (folder / RL / "metrics.jsonl").write_text("".join(json.dumps({"step": n}) + "\n" for n in numbers))


def test_a_run_stands_for_all_its_models_and_snapshots(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    steps(run, 1, 2, 10, 10)
    for name in ("00000004", "00000008", "00000008.part"):
        (run / RL / "snapshots" / name).mkdir(parents=True)
        (run / RL / "snapshots" / name / "config.json").write_text("{}")
    found = find_candidates([str(run)])
    assert [(c.label, c.role, c.sequences) for c in found] == [
        ("start", "start", 0),
        ("sl-cai", "sl-cai", 0),
        ("rl-cai", "rl-cai", 20),
        ("rl-cai@00000004", "rl-cai", 4),
        ("rl-cai@00000008", "rl-cai", 8),
    ]
    assert found[0].model == "scripted:echo"
    assert found[1].model == f"hf:{run.resolve() / SL / 'model'}"
    assert {c.run for c in found} == {str(run)}


@pytest.mark.parametrize(
    ("rl_cai", "last", "prompts"),
    [
        ({}, 30, 60),  # epochs count: 20 prompts in its file, and seen three times
        ({"passes": 2}, 30, 30),  # two steps on each batch
        ({"passes": 2}, 31, 30),
        ({}, 3, 6),  # stopped early
        ({"algorithm": "dpo", "kl_weight": 0.1}, 30, None),
    ],
)
def test_prompts_seen_are_counted_as_snapshots_count_them(
    tmp_path: Path, rl_cai: dict[str, Any], last: int, prompts: int | None
) -> None:
    run = a_run(tmp_path / "run", **rl_cai)
    steps(run, 1, last)
    assert find_candidates([str(run)])[2].sequences == prompts


def test_what_a_run_has_not_trained_yet_is_left_out(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", stages=(SL,))
    assert [c.label for c in find_candidates([str(run)])] == ["start", "sl-cai"]
    no_steps = a_run(tmp_path / "silent")
    assert find_candidates([str(no_steps)])[2].sequences is None


def test_of_several_runs_each_label_begins_with_the_runs_name(tmp_path: Path) -> None:
    one, two = a_run(tmp_path / "one", stages=()), a_run(tmp_path / "two", stages=())
    found = find_candidates([str(one), str(two), "scripted:echo"])
    assert [(c.label, c.role) for c in found] == [
        ("one:start", "start"),
        ("two:start", "start"),
        ("scripted:echo", "scripted:echo"),
    ]
    assert run_folders([str(one), "scripted:echo"]) == [one]


@pytest.mark.parametrize(
    ("name", "label", "model"),
    [
        ("scripted:echo", "scripted:echo", "scripted:echo"),
        ("sl-cai=scripted:echo", "sl-cai", "scripted:echo"),
        ("mine=hf:some/a=b", "mine", "hf:some/a=b"),
        (
            "server:m@http://localhost:1/v1?a=b",
            "server:m@http://localhost:1/v1?a=b",
            "server:m@http://localhost:1/v1?a=b",
        ),
    ],
)
def test_a_model_is_named_or_labelled(name: str, label: str, model: str) -> None:
    assert find_candidates([name]) == [Candidate(label, model, label)]


def test_what_is_neither_run_nor_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "run.json").write_text("{}")
    for name, says in (
        ("gpt", "unknown model 'gpt'"),
        ("a=gpt", "unknown model 'gpt'"),
        (str(tmp_path / "model"), f"is not a run: .* write hf:{tmp_path / 'model'}"),
        (str(tmp_path / "evaluation"), "has no recipe.yaml"),
    ):
        with pytest.raises(InputError, match=says):
            find_candidates([name])
    with pytest.raises(InputError, match=r"two models are called 'scripted:echo'. .* OTHER=scripted:echo"):
        find_candidates(["scripted:echo", "scripted:echo"])


def test_parameters_are_counted_in_the_files(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    assert find_candidates([f"tiny=hf:{tiny}"])[0].parameters == sum(p.numel() for p in model.parameters())


def test_other_weights_have_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text("{}")
    name, whole = f"hf:{tmp_path}", bytearray(3_000_000)
    file.write_bytes(whole)
    before = weights_digest(name)
    assert before == weights_digest(name)
    for first in (0, 1_500_000):
        changed = bytes(whole[:first]) + bytes([1]) * 200_000 + bytes(whole[first + 200_000 :])
        file.write_bytes(changed)
        assert weights_digest(name) != before
    file.write_bytes(whole + b"more")
    assert weights_digest(name) != before
    assert weights_digest("scripted:echo") == weights_digest("server:m@http://localhost:1/v1") == ""
