"""Several processes train what one does: the same rows in the same order, the same losses, one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from constitutional_ai import machine
from constitutional_ai.errors import InputError
from constitutional_ai.training import launch, processes
from constitutional_ai.training.regression import regress
from constitutional_ai.training.settings import Training
from constitutional_ai.training.shares import Shares, WithWeightless
from tests.training import both_ways
from tests.training.jobs import training_job

SAME = ("loss", "grad_norm", "reward", "kl", "entropy", "value_loss", "unscored")
LIMIT_SECONDS = 1800
"""A busy machine takes minutes to import torch; nothing here is measured."""


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module in two processes, which find each other on a free port of this machine."""
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    return subprocess.run(
        [*started, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


@pytest.fixture(scope="module")
def trained(make_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of all trainings by one process and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    model = make_tiny()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "arguments", launch.arguments)  # `in_float32` sets both; the patch restores them
        patch.setattr(machine, "best_dtype", machine.best_dtype)
        both_ways.train_all(model, one)
    done = torchrun("tests.training.both_ways", str(model), str(two))
    assert done.returncode == 0, done.stderr
    return one, two


@pytest.mark.parametrize("training", ["sft", "pm", "rloo", "grpo", "ppo"])
def test_two_processes_have_the_losses_and_weights_of_one(trained: tuple[Path, Path], training: str) -> None:
    one, two = [both_ways.logged(folder / training) for folder in trained]
    assert [row["step"] for row in two] == [row["step"] for row in one] != []
    for of_one, of_two in zip(one, two, strict=True):
        for key in of_one.keys() & set(SAME):
            assert of_two[key] == pytest.approx(of_one[key], abs=1e-4, rel=1e-4), (of_one["step"], key)
    weights = [load_file(folder / training / "model" / "model.safetensors") for folder in trained]
    assert weights[0].keys() == weights[1].keys()
    for name, of_one in weights[0].items():
        torch.testing.assert_close(weights[1][name], of_one, rtol=0, atol=2e-3)


def test_an_interrupted_training_of_two_processes_went_on(trained: tuple[Path, Path]) -> None:
    one, two = [both_ways.logged(folder / "sft") for folder in trained]
    assert [row["step"] for row in two] == [1, 2, 3, 4]
    assert [row["num_tokens"] for row in two] == [row["num_tokens"] for row in one]
    states = (trained[1] / "sft" / "checkpoints").glob("checkpoint-4/rng_state_*.pth")
    assert sorted(path.name for path in states) == ["rng_state_0.pth", "rng_state_1.pth"]


@pytest.mark.parametrize(
    ("settings", "each"),
    [
        ({"batch_size": 8}, 4),
        ({"batch_size": 8, "micro_batch": 8}, 4),
        ({"batch_size": 12, "micro_batch": 3}, 6),
        ({"batch_size": 7}, "sl_cai.batch_size=7 does not divide among 2 processes"),
        ({"batch_size": 6, "micro_batch": 2}, "sl_cai.micro_batch=2 does not divide the 3 rows"),
    ],
)
def test_a_batch_is_that_of_all_processes(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], each: int | str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    if isinstance(each, int):
        assert processes.rows_each(Training(**settings), "sl_cai") == each
    else:
        with pytest.raises(InputError, match=each):
            processes.rows_each(Training(**settings), "sl_cai")


def test_processes_that_nothing_connects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with pytest.raises(InputError, match="torchrun --nproc_per_node"):
        processes.use_own_device()


def test_a_regression_is_trained_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="without torchrun"):
        regress(training_job(), tokenizer=None)


def test_one_process_hears_itself() -> None:
    assert os.environ.get("WORLD_SIZE") is None
    assert (processes.count(), processes.rank(), processes.agreed("a"), processes.is_first()) == (
        1,
        0,
        "a",
        True,
    )


def test_every_row_is_in_one_share_and_every_process_has_as_many_micro_batches() -> None:
    for rows in range(1, 30):
        for count in (1, 2, 3, 4):
            order = list(range(100, 100 + rows))
            shares = [list(Shares(order, 2, rank, count)) for rank in range(count)]
            assert {len(batches) for batches in shares} == {len(Shares(order, 2, 0, count))}
            together = list(zip(*shares, strict=True))
            of_all = [row for batches in together for batch in batches for row in batch]
            assert [row for row in of_all if row >= 0] == order
            assert all(len({len(batch) for batch in batches}) == 1 for batches in together)
            assert sum(row < 0 for row in of_all) < count


def test_a_row_that_counts_for_nothing_stands_under_its_complement() -> None:
    rows = WithWeightless([{"labels": [1]}, {"labels": [2]}], lambda row: row | {"labels": [-100]})
    assert (rows[1], rows[~1], len(rows)) == ({"labels": [2]}, {"labels": [-100]}, 2)


class Doubling(torch.nn.Module):
    """A wrapper that does something around the pass of what it wraps."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        return 2 * self.model(*inputs)


def test_a_pass_through_a_wrapper_is_the_wrappers_own() -> None:
    model = torch.nn.Identity()
    assert processes.through(model, model, lambda: torch.ones(1)).item() == 1
    wrapper = Doubling(model)
    assert processes.through(wrapper, model, lambda: model(torch.ones(1)) + 2).item() == 6
    assert wrapper(torch.ones(1)).item() == 2  # afterwards the model's pass is its own again
    with pytest.raises(ZeroDivisionError):
        processes.through(wrapper, model, lambda: 1 // 0)
    assert wrapper(torch.ones(1)).item() == 2
