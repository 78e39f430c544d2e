"""Trackers are other people's: here they are stood in for, so that none need be installed."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from trl.trainer import base_trainer

from constitutional_ai.errors import InputError
from constitutional_ai.pipeline import run_pipeline
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Completion, Message, Prompt, Response
from constitutional_ai.runs.runner import Silent
from constitutional_ai.sl_cai.finetune import examples, finetune
from constitutional_ai.training import trackers
from constitutional_ai.training.settings import Training
from tests.training.jobs import training_job

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and trl, about each other


def stand_in(patch: pytest.MonkeyPatch, *names: str) -> MagicMock:
    fake = MagicMock(run=None, __spec__=ModuleSpec(names[0], None))
    for name in names:
        patch.setitem(sys.modules, name, fake)
    return fake


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """Like the true one, it is asked for a run only when it has none."""
    fake = stand_in(monkeypatch, "wandb", "wandb.sdk", "wandb.sdk.lib", "wandb.sdk.lib.config_util")
    # TRL imports it by name where it was there when TRL was: not so, if another test came first.
    monkeypatch.setattr(base_trainer, "wandb", fake, raising=False)
    fake.init.side_effect = lambda **how: setattr(fake, "run", MagicMock())
    fake.finish.side_effect = lambda: setattr(fake, "run", None)
    return fake


def train(tiny: Path, folder: Path, *report_to: str) -> None:
    folder.mkdir()
    prompt = Prompt.of((Message("user", "How do I bake bread?"),), "helpful", "test")
    answers = [Response(f"{n}", prompt, Completion("Mix flour.", "m", "stop", 0, 0)) for n in range(2)]
    settings = Training(batch_size=2)
    finetune(training_job(examples([], answers), tiny, folder, settings, report_to=report_to))


def test_no_tracker_is_told_of_anything_unless_the_recipe_names_it(
    wandb: MagicMock, tiny: Path, tmp_path: Path
) -> None:
    assert Recipe().report_to == ()
    train(tiny, tmp_path / "one")
    assert not wandb.mock_calls


def test_a_tracker_is_told_what_is_logged_and_each_training_is_a_run_of_its_own(
    wandb: MagicMock, tiny: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        train(tiny, folder, "wandb")
    assert [call.kwargs["name"] for call in wandb.init.call_args_list] == [str(f) for f in folders]
    assert wandb.run is None
    first = json.loads((folders[0] / "metrics.jsonl").read_text())
    assert wandb.log.call_args_list[0].args[0]["train/loss"] == first["loss"]


def test_what_tensorboard_writes_outlives_the_checkpoints(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # the true one, where it is installed
    writer = stand_in(monkeypatch, "tensorboardX").SummaryWriter
    train(tiny, tmp_path / "one", "tensorboard")
    writer.assert_called_once_with(log_dir=str(tmp_path / "one" / "tensorboard"))
    assert "train/loss" in [call.args[0] for call in writer().add_scalar.call_args_list]


def test_a_tracker_that_is_not_installed_is_one_sentence_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    recipe = Recipe(out=str(tmp_path / "run"), report_to=("trackio",))
    with pytest.raises(InputError, match=r"trackio, which is not installed\. Type: pip install trackio$"):
        run_pipeline(recipe, progress=Silent(), notify=print)
    assert not (tmp_path / "run").exists()
