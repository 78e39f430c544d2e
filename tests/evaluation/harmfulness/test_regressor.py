from __future__ import annotations

from pathlib import Path

import pytest
import torch

from constitutional_ai import machine
from constitutional_ai.evaluation.harmfulness.regressor import HarmfulnessModel
from constitutional_ai.records import Message
from constitutional_ai.training.regression import Collator, Target, predict


def test_a_conversation_is_rated_as_in_training_whatever_is_batched_with_it(
    tiny_pm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)
    model = HarmfulnessModel(tiny_pm)
    talks = [(Message("user", "Hi"), Message("assistant", "x" * (n * 17 % 60 + 1))) for n in range(40)]
    texts = [
        f"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{t[-1].content}<|im_end|>\n" for t in talks
    ]
    ids = [model._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    rows = [Target(one, 0.0) for one in ids]
    with torch.no_grad():
        mean = [float(model._model.score(model._model.model(torch.tensor([one]))[0]).mean()) for one in ids]
    assert model.scores(talks) == pytest.approx(mean, abs=1e-4)
    # Training is in bfloat16's autocast.
    assert predict(model._model, rows, Collator(0, True)) == pytest.approx(mean, abs=0.1)
