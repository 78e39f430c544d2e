"""A step of RL on our engine is the step that TRL makes of the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from constitutional_ai import machine
from constitutional_ai.engine.sampling import Sampler
from constitutional_ai.records import Conversation, Message, Prompt
from constitutional_ai.rl_cai.reinforcement.algorithms import AlgorithmName
from constitutional_ai.rl_cai.reinforcement.reinforce import examples, reinforce
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.training import launch, on_engine, packing
from tests.training.jobs import training_job

LENGTH = 6
SAME = ("loss", "grad_norm", "kl", "entropy", "reward", "completions/mean_length", "value_loss")


def letters(talks: list[Conversation]) -> list[float]:
    return [sum(map(ord, talk[-1].content)) % 7 / 2 for talk in talks]


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    given = launch.arguments
    monkeypatch.setattr(launch, "arguments", lambda *a, **more: given(*a, **more) | {"bf16": False})
    monkeypatch.setattr(machine, "best_dtype", lambda: torch.float32)


def scripted(monkeypatch: pytest.MonkeyPatch, trls: bool) -> None:
    """Both sides get the same answers, of several lengths: token k of row i is a fixed number."""
    tokens = torch.tensor([[40 + (7 * row + 3 * k) % 50 for k in range(LENGTH)] for row in range(8)])
    tokens[1, 3] = tokens[6, 1] = 2  # two answers end early
    if trls:
        for module in (packing, on_engine):
            monkeypatch.setattr(module, "packs", lambda _: False)
        monkeypatch.setattr(
            LlamaForCausalLM, "generate", lambda _, input_ids, **__: torch.cat([input_ids, tokens], 1)
        )
    else:
        monkeypatch.setattr(
            Sampler, "__call__", lambda _, logits, rows, step: torch.stack([tokens[row, step] for row in rows])
        )


def train(
    base: Path, folder: Path, algorithm: AlgorithmName, rank: int | None, passes: int
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    folder.mkdir()
    talks = [(Message("user", f"Tell me {'again ' * n}{n}."),) for n in range(4)]
    how = RLTraining(
        algorithm=algorithm,
        lora_rank=rank,
        passes=passes,
        kl_weight=0.3,
        answers=4,
        max_tokens=LENGTH,
        batch_size=8,
        micro_batch=4,
        temperature=0.8,
        learning_rate=5e-3,
    )
    rows = examples(Prompt.of(talk, "red_team", "test") for talk in talks)
    made = reinforce(training_job(rows, base, folder, how, base_name="sl-cai"), reward=letters)
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return logged, load_file(Path(made.path) / "model.safetensors")


@pytest.mark.parametrize(
    ("algorithm", "rank", "passes"),
    [("rloo", None, 1), ("rloo", 2, 2), ("grpo", None, 2), ("grpo", 2, 1), ("ppo", 2, 1), ("ppo", None, 2)],
)
def test_a_step_on_the_engine_is_trls_own_on_the_same_answers(
    float32: None,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: AlgorithmName,
    rank: int | None,
    passes: int,
) -> None:
    found = []
    for trls in (False, True):
        with monkeypatch.context() as patch:
            scripted(patch, trls)
            found.append(train(tiny, tmp_path / str(trls), algorithm, rank, passes))
    (ours, our_weights), (theirs, their_weights) = found
    assert len(ours) == len(theirs) == 2 * passes
    for own, other in zip(ours, theirs, strict=True):
        assert own.keys() == other.keys()
        for name in SAME:
            # GRPO logs the mean of its micro-batches' means, and TRL shuffles the answers over these.
            if name in other and not (algorithm == "grpo" and name in ("kl", "entropy")):
                assert own[name] == pytest.approx(other[name], rel=2e-3, abs=1e-4), name
    before = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).state_dict()
    # All weights together: where a gradient is no more than rounding, Adam makes a whole step of it, this way or that.
    apart = sum((weight - their_weights[name]).square().sum() for name, weight in our_weights.items())
    changed = sum((weight - before[name]).square().sum() for name, weight in our_weights.items())
    assert changed > 0 and apart < 0.05**2 * changed


def test_the_first_ratio_of_a_batch_is_one_whatever_sampling_rounds(
    float32: None, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled log-probabilities are made wrong by 0.1 a token. At ratio 1 the loss is −mean of advantages."""
    given = on_engine.OnEngine._sampled_logps
    monkeypatch.setattr(on_engine.OnEngine, "_sampled_logps", lambda self, rows: given(self, rows) + 0.1)
    off: list[torch.Tensor] = []

    def noted(self: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super(on_engine.OnEngine, self)._compute_loss(model, inputs)
        off.append(inputs["advantages"].mean() + loss.detach())
        return loss

    def begun(self: Any, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._inputs = inputs
        return noted(self, model, inputs)

    monkeypatch.setattr(on_engine.OnEngine, "_compute_loss", begun)
    train(tiny, tmp_path / "run", "rloo", None, 1)
    assert len(off) == 4
    assert all(abs(float(each)) < 1e-4 for each in off)
