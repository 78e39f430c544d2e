"""``cai run`` in two processes: rank zero makes the records and owns the run, and both train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from constitutional_ai.cli import main
from tests.pipeline.tiny_run import make, settings
from tests.training.test_processes import torchrun

STAGE = "03-sl-cai-model"


def test_two_processes_train_as_one_does_on_the_records_of_rank_zero(model: str, tmp_path: Path) -> None:
    recipe, two, one = tmp_path / "recipe.yaml", tmp_path / "two", tmp_path / "one"
    recipe.write_text(yaml.safe_dump(settings(model, two)))
    done = torchrun("constitutional_ai", "run", str(recipe), "--until", STAGE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{STAGE} is complete") == 1  # only rank zero talks
    shutil.copytree(two, one)
    shutil.rmtree(one / STAGE)
    make(settings(model, one), until=STAGE)
    rows = [
        [json.loads(line) for line in (folder / STAGE / "metrics.jsonl").read_text().splitlines()]
        for folder in (one, two)
    ]
    assert (one / STAGE / "dataset.jsonl").read_bytes() == (two / STAGE / "dataset.jsonl").read_bytes()
    assert [row["num_tokens"] for row in rows[1]] == [row["num_tokens"] for row in rows[0]]
    # In bfloat16, where the processor has it, two ways of adding up differ.
    assert [row["loss"] for row in rows[1]] == pytest.approx([row["loss"] for row in rows[0]], rel=0.02)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("sl_cai.batch_size=7", "sl_cai.batch_size=7 does not divide among 2 processes"),
        ("rl_cai.batch_size=6 rl_cai.answers=2", "make it a multiple of 4"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str, why: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setattr("constitutional_ai.training.processes.agreed", lambda text="": text)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings("scripted:echo", tmp_path / "run")))
    done = CliRunner().invoke(main, ["run", str(recipe), *change.split()])
    assert (done.exit_code, why in done.output) == (1, True), done.output
    assert not (tmp_path / "run").exists()


def test_sharded_weights_and_ppo_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from constitutional_ai.errors import InputError
    from constitutional_ai.recipes.recipe import Recipe
    from constitutional_ai.stages.calls import check_processes

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for change, why in (({"algorithm": "ppo"}, "ppo"), ({"snapshot_every": 4}, "snapshot_every=null")):
        asked = settings("scripted:echo", tmp_path / "run")
        asked["rl_cai"] |= change
        with pytest.raises(InputError, match=why):
            check_processes(Recipe.model_validate(asked))
