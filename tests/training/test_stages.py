"""What the three trainings of the method hand to TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cai.records import Completion, Message, Prompt, Response
from cai.sl_cai.finetune import examples, finetune
from cai.training import launch
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


def test_what_is_too_long_is_left_out_and_not_cut(caught: None, tiny: Path, tmp_path: Path) -> None:
    """As Training.max_length promises: half an answer teaches a model to stop in the middle."""
    trainer = sft(tiny, tmp_path, "No.", "Mix flour. " * 30)
    texts = [trainer.processing_class.decode(row["input_ids"]) for row in trainer.train_dataset]
    assert all(text.rstrip("\n").endswith("<|im_end|>") for text in texts)
