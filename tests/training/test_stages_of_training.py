"""What the three trainings of the method hand to TRL."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from constitutional_ai.models.model import STOP_STRINGS
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Checkpoint, Completion, Message, Prompt, Response
from constitutional_ai.rl_cai.preference_model.train import train_preference_model
from constitutional_ai.sl_cai.finetune import examples, finetune
from constitutional_ai.stages.job import Job
from constitutional_ai.training import launch  # first: it turns telemetry off

from trl import SFTTrainer  # isort: skip
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # isort: skip

from constitutional_ai.training.completion_loss import CompletionLossTrainer
from constitutional_ai.training.datasets import within, without_stop_strings
from constitutional_ai.training.settings import Training
from tests.training.jobs import training_job


class Caught(Exception):
    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings stop before their first step."""

    def stop(trainer: Any, *_: object) -> None:
        raise Caught(trainer)

    monkeypatch.setattr(launch, "train", stop)


def rows(*answers: str) -> list[dict[str, Any]]:
    prompt = Prompt.of((Message("user", "How do I bake bread?"),), "helpful", "test")
    return examples(
        [], [Response(str(n), prompt, Completion(a, "m", "stop", 0, 0)) for n, a in enumerate(answers)]
    )


def sft(tiny: Path, tmp_path: Path, *answers: str) -> Any:
    with pytest.raises(Caught) as stopped:
        finetune(training_job(rows(*answers), tiny, tmp_path, Training(max_length=64, batch_size=2)))
    return stopped.value.trainer


def test_the_loss_is_on_the_answer_only(caught: None, tiny: Path, tmp_path: Path) -> None:
    trainer = sft(tiny, tmp_path, "Mix flour.", "No.")
    batch = next(iter(trainer.get_train_dataloader()))
    learned = trainer.processing_class.decode(batch["input_ids"][batch["labels"] != -100])
    assert sorted(learned.splitlines()) == ["Mix flour.<|im_end|>", "No.<|im_end|>"]


def test_what_is_too_long_is_left_out_and_counted_and_never_cut(tiny: Path) -> None:
    """Training.max_length promises it: half an answer teaches a model to stop in the middle."""
    short, long = rows("No.", "Mix flour. " * 60)
    assert within([short, long, short], tiny, 256) == ([short, short], 1)


def test_a_control_token_written_out_opens_no_turn_in_training(tiny: Path) -> None:
    (row,), _ = within(rows("Yes.<|im_end|>\n<|im_start|>user\nMore!"), tiny, 512)
    assert "<|im_" not in row["completion"][0]["content"]


def test_words_that_open_a_turn_open_none_in_training_in_the_plain_format(tiny_plain: Path) -> None:
    (row,), _ = within(rows("Sure.\n\nAssistant: More!"), tiny_plain, 512)
    assert row["completion"][0]["content"] == "Sure.\n\nAssistant : More!"


@pytest.mark.parametrize("side", ["completion", "chosen", "rejected"])
@pytest.mark.parametrize("stop", STOP_STRINGS)
def test_no_answer_that_speaks_for_the_human_is_learned_from(side: str, stop: str) -> None:
    fine: dict[str, Any] = {"prompt": [{"role": "user", "content": f"Hi{stop}"}], "p_chosen": 1.0}
    fine |= {
        key: [{"role": "assistant", "content": "Human: no."}] for key in ("completion", "chosen", "rejected")
    }
    forged = fine | {side: [{"role": "assistant", "content": f"Yes.{stop} Thanks!"}]}
    assert without_stop_strings([forged, fine, forged]) == [fine]


def test_answers_left_out_for_that_are_counted_in_the_notes(tiny: Path) -> None:
    said: list[str] = []
    recipe = Recipe(models={"pretrained": f"hf:{tiny}"})
    job = Job(None, recipe, None, {}, said.append)  # type: ignore[arg-type]  # neither run nor constitution is asked
    fine, forged = rows("No.", "No.\n\nHuman: Why?")
    assert job.usable_rows("03", [fine, forged], "sl_cai") == ([fine], {"with_stop_string": 1, "too_long": 0})
    assert said == ["03: 1 of 2 rows have a human turn inside an answer, and are left out."]


@pytest.mark.parametrize("chat", [True, False])
def test_our_loss_is_trls(make_tiny: Callable[..., Path], caught: None, tmp_path: Path, chat: bool) -> None:
    """The gradients agree too, in a packed row and in a padded batch."""
    trainer = sft(make_tiny(chat=chat), tmp_path, "Mix flour.", "No.", "Bake it for an hour.")
    trainer.accelerator.native_amp = False
    rows = [trainer.train_dataset[n] for n in range(3)]
    pad = trainer.processing_class.pad_token_id
    both = {}
    for name, loss in (("ours", CompletionLossTrainer), ("theirs", SFTTrainer)):
        for free in (True, False):
            trainer.model.zero_grad()
            value = loss.compute_loss(trainer, trainer.model, DataCollatorForLanguageModeling(pad, free)(rows))
            value.backward()
            gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
            both[name, free] = torch.cat([value.detach()[None], gradient])
    for found in both.values():
        assert torch.allclose(found, both["theirs", False], rtol=1e-3, atol=1e-4)


def test_our_loss_is_multiplied_in_the_type_that_trl_multiplies_in(
    caught: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes past the wrapper in which the trainer casts."""
    arguments = launch.arguments
    monkeypatch.setattr(launch, "arguments", lambda *a, **k: arguments(*a, **k) | {"bf16": True})
    trainer = sft(tiny, tmp_path, "Mix flour.", "No.")
    types = []
    trainer.model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *hook: types.append(hook[2].dtype))
    trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert types == [torch.bfloat16]


def test_a_pretrained_model_without_a_template_learns_the_plain_format(
    make_tiny: Callable[..., Path], caught: None, tmp_path: Path
) -> None:
    trainer = sft(make_tiny(chat=False), tmp_path, "No.")
    text = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert text == f"\n\nHuman: How do I bake bread?\n\nAssistant: No.{trainer.processing_class.eos_token}\n"


Train = Callable[..., Checkpoint]


def pairs(count: int) -> list[dict[str, Any]]:
    asked = [{"role": "user", "content": "How do I bake bread?"}]
    sides = [("Mix flour.", "No."), ("No.", "Bake it for an hour.")]
    return [
        {
            "id": str(n),
            "prompt": asked,
            "chosen": [{"role": "assistant", "content": f"{sides[n % 2][0]} {n}"}],
            "rejected": [{"role": "assistant", "content": sides[n % 2][1]}],
            "p_chosen": 0.1 * n,
        }
        for n in range(count)
    ]


STAGES = [(finetune, rows(*[f"Mix {n} cups." for n in range(8)])), (train_preference_model, pairs(8))]
TRAINED = pytest.mark.parametrize(("train", "data"), STAGES, ids=["sl-cai", "preference model"])


def digest(
    train: Train,
    data: list[dict[str, Any]],
    base: Path,
    folder: Path,
    on_step: Any = lambda *_: None,
    **more: Any,
) -> str:
    folder.mkdir(exist_ok=True)
    settings = Training(**{"max_length": 64, "batch_size": 2, "learning_rate": 1e-2, "epochs": 2, **more})
    return train(training_job(data, base, folder, settings, on_step=on_step)).digest


@TRAINED
@pytest.mark.parametrize("kills", [(3, 4), (1, 7)])
def test_a_training_killed_twice_and_resumed_ends_at_the_weights_of_the_unbroken_one(
    tiny: Path, tmp_path: Path, train: Train, data: list[dict[str, Any]], kills: tuple[int, int]
) -> None:
    seen: list[int] = []

    def kill(done: int, at: int) -> None:
        seen.append(done)
        if done == at:
            raise KeyboardInterrupt

    resumed = ""
    for at in (*kills, None):
        with contextlib.suppress(KeyboardInterrupt):
            resumed = digest(
                train, data, tiny, tmp_path / "killed", lambda n, _, at=at: kill(n, at), checkpoint_steps=2
            )
    first, second = ((at - 1) // 2 * 2 for at in kills)  # a step is saved after it is told
    assert seen == [*range(1, kills[0] + 1), *range(first + 1, kills[1] + 1), *range(second + 1, 9)]
    assert resumed == digest(train, data, tiny, tmp_path / "whole", checkpoint_steps=2)
    logged = [json.loads(x)["step"] for x in (tmp_path / "killed/metrics.jsonl").read_text().splitlines()]
    assert logged == [*range(1, 9)]
    assert [path.name for path in (tmp_path / "killed/checkpoints").glob("checkpoint-*")] == ["checkpoint-8"]
    seen.clear()  # killed before the stage was complete: no step is repeated, and no logged row is lost
    assert (
        digest(train, data, tiny, tmp_path / "killed", lambda n, _: seen.append(n), checkpoint_steps=2)
        == resumed
    )
    assert seen == []
    assert (tmp_path / "killed/metrics.jsonl").read_text().count("\n") == 8


@TRAINED
def test_how_many_go_through_the_model_at_once_is_a_matter_of_memory_and_not_of_the_result(
    tiny: Path, tmp_path: Path, train: Train, data: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = launch.arguments
    monkeypatch.setattr(launch, "arguments", lambda *a, **k: arguments(*a, **k) | {"bf16": False})
    # One step: Adam's first goes by the signs of the gradient, so it is the clipped gradient's norm that is compared.
    losses = []
    for micro in (None, 1, 2):
        folder = tmp_path / str(micro)
        digest(train, data, tiny, folder, batch_size=8, micro_batch=micro, epochs=1)
        (step,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses.append([step["loss"], step["grad_norm"]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)
