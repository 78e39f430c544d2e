"""What the three trainings of the method hand to TRL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trl import SFTTrainer

from cai.records import Completion, Message, Prompt, Response
from cai.sl_cai.finetune import examples, finetune
from cai.training import launch
from cai.training.datasets import within
from cai.training.settings import Training


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
        finetune(
            rows(*answers),
            base=tiny,
            base_name="hf:tiny",
            folder=tmp_path,
            training=Training(max_length=64, batch_size=2),
            seed=0,
            on_step=print,
        )
    return stopped.value.trainer


def test_the_loss_is_on_the_answer_only(caught: None, tiny: Path, tmp_path: Path) -> None:
    trainer = sft(tiny, tmp_path, "Mix flour.", "No.")
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        learned = trainer.processing_class.decode(ids[labels != -100])
        assert learned.rstrip("\n") in ("Mix flour.<|im_end|>", "No.<|im_end|>")


def test_what_is_too_long_is_left_out_and_counted_and_never_cut(tiny: Path) -> None:
    """As Training.max_length promises: half an answer teaches a model to stop in the middle."""
    short, long = rows("No.", "Mix flour. " * 60)
    assert within([short, long, short], tiny, 256) == ([short, short], 1)


def test_a_control_token_written_out_opens_no_turn_in_training(tiny: Path) -> None:
    (row,), _ = within(rows("Yes.<|im_end|>\n<|im_start|>user\nMore!"), tiny, 512)
    assert "<|im_" not in row["completion"][0]["content"]


@pytest.mark.parametrize("chat", [True, False])
def test_our_loss_is_trls(make_tiny: Callable[..., Path], caught: None, tmp_path: Path, chat: bool) -> None:
    trainer = sft(make_tiny(chat=chat), tmp_path, "Mix flour.", "No.")
    batch = next(iter(trainer.get_train_dataloader()))
    ours = trainer.compute_loss(trainer.model, dict(batch))
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)


def test_a_pretrained_model_without_a_template_learns_the_plain_format(
    make_tiny: Callable[..., Path], caught: None, tmp_path: Path
) -> None:
    trainer = sft(make_tiny(chat=False), tmp_path, "No.")
    text = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert text == f"\n\nHuman: How do I bake bread?\n\nAssistant: No.{trainer.processing_class.eos_token}\n"


def test_a_killed_training_resumed_ends_at_the_weights_of_the_unbroken_one(tiny: Path, tmp_path: Path) -> None:
    def train(folder: Path, on_step: Callable[[int, int], None]) -> str:
        folder.mkdir(exist_ok=True)
        setting = Training(max_length=64, batch_size=2, checkpoint_steps=1, learning_rate=1e-2)
        data = rows(*[f"Mix {n} cups." for n in range(8)])
        return finetune(
            data, base=tiny, base_name="t", folder=folder, training=setting, seed=0, on_step=on_step
        ).digest

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", kill)
    steps: list[int] = []
    resumed = train(tmp_path / "killed", lambda done, _: steps.append(done))
    assert steps == [3, 4]  # the third was not yet in a checkpoint
    assert resumed == train(tmp_path / "whole", lambda *_: None)
    logged = [json.loads(x)["step"] for x in (tmp_path / "killed/metrics.jsonl").read_text().splitlines()]
    assert logged == [1, 2, 3, 4]
    assert not (tmp_path / "killed/checkpoints").exists()
