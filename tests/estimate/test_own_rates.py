from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from constitutional_ai.cli import main
from constitutional_ai.errors import InputError
from constitutional_ai.estimate.count_work import Estimate
from constitutional_ai.estimate.own_rates import estimate_by_rates
from constitutional_ai.estimate.rate_table import load_rates
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.runs import layout

RATES = """\
models:
  default: {size: 8B, prefill: 10000, decode: 2000, train: 4000}
  feedback: {size: 70B, prefill: 1000, decode: 200}
gpu: {memory_gb: 80, price_per_hour: 2}
scale: {red_team: 182831, helpful: 135296, comparisons: 135296, reinforcement: 1283569, held_out: 1000}
"""


def by_rates(folder: Path, text: str = RATES, *changes: str, recipe: str = "paper") -> dict[str, Estimate]:
    file = folder / "rates.yaml"
    file.write_text(text)
    return {one.stage: one for one in estimate_by_rates(load_recipe(recipe, changes), load_rates(file))}


def test_the_paper_is_counted_at_its_own_scale(tmp_path: Path) -> None:
    found = by_rates(tmp_path)
    assert found[layout.RESPONSES].records == 182831 + 2 * 135296  # SL-5, SL-16
    assert found[layout.REVISIONS].records == 182831  # SL-2
    assert found[layout.PREFERENCE_MODEL].records == pytest.approx(318127, rel=0.01)  # PM-1
    assert found[layout.RL_CAI_MODEL].records == 1283569  # RL-5
    assert found[layout.EVALUATION].records == 3 * 1000


def test_hours_are_tokens_by_the_rates_and_money_is_hours_by_their_price(tmp_path: Path) -> None:
    found = by_rates(tmp_path)
    one = found[layout.RESPONSES]
    assert one.written == one.records * 128  # as long as they may be
    assert one.read and one.written and one.gpu_hours and one.cost
    assert one.gpu_hours == pytest.approx((one.read / 10000 + one.written / 2000) / 3600, rel=1e-6)
    assert one.cost == pytest.approx(2 * one.gpu_hours)
    trained = found[layout.SL_CAI_MODEL]
    assert trained.trained and trained.gpu_hours == pytest.approx(trained.trained / 4000 / 3600, rel=1e-6)
    label = found[layout.PREFERENCE_LABELS]  # by the model of 70B
    assert label.read and label.gpu_hours == pytest.approx(label.read / 1000 / 3600, rel=1e-6)
    assert label.memory and label.memory > 140e9 > (one.memory or 0) > 16e9


def test_tokens_of_a_server_are_paid_for_and_take_no_gpu(tmp_path: Path) -> None:
    text = RATES.replace("{size: 70B, prefill: 1000, decode: 200}", "{price_read: 3, price_written: 15}")
    one = by_rates(tmp_path, text)[layout.PREFERENCE_LABELS]
    assert one.read and one.cost == pytest.approx(one.read * 3 / 1e6, rel=1e-6)
    assert (one.gpu_hours, one.memory) == (0, 0)


def test_what_the_table_does_not_tell_is_unknown(tmp_path: Path) -> None:
    found = by_rates(tmp_path, "models: {default: {size: 8B, decode: 2000}}\n")
    assert found[layout.RESPONSES].gpu_hours is None and found[layout.RESPONSES].cost is None
    assert found[layout.RESPONSES].memory and found[layout.SL_CAI_MODEL].memory


def test_the_table_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "estimate.md").read_text()
    assert by_rates(tmp_path, page.partition("```yaml\n")[2].partition("```")[0]) == by_rates(tmp_path)


def test_lora_and_smaller_micro_batches_take_less_memory(tmp_path: Path) -> None:
    def memory(*changes: str) -> float:
        return by_rates(tmp_path, RATES, *changes)[layout.RL_CAI_MODEL].memory or 0

    assert memory() > memory("rl_cai.micro_batch=1") > memory("rl_cai.micro_batch=1", "rl_cai.lora_rank=16")


@pytest.mark.parametrize(
    ("text", "place", "fault"),
    [
        ("models:\n  default: {sise: 8B}\n", ":2:", "size"),
        ("models:\n  default:\n    decode: -3\n", ":3:", "decode"),
        ("gpu: {}\n", ":1:", "models"),
        ("models: {judge: {size: 8B}}\n", ":1:", "judge"),
        ("models: {default: {size: large}}\n", ":1:", "size"),
        ("[]", ":1:", "keys"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(tmp_path: Path, text: str, place: str, fault: str) -> None:
    with pytest.raises(InputError) as error:
        by_rates(tmp_path, text)
    assert f"rates.yaml{place}" in str(error.value) and fault in str(error.value)


@pytest.mark.parametrize("recipe", ["demo", "rlhf-helpful"])
@pytest.mark.parametrize(
    "change",
    [
        "feedback.method=votes",
        "feedback.method=chain_of_thought",
        "rl_cai.algorithm=dpo rl_cai.stop_above={} rl_cai.kl_weight=0.1",
        "rl_cai.reward=feedback",
    ],
)
def test_every_kind_of_recipe_can_be_estimated(tmp_path: Path, recipe: str, change: str) -> None:
    changes = [*change.split(), "feedback.format=auto"]
    found = by_rates(tmp_path, RATES, *changes, recipe=recipe)
    assert all(one.gpu_hours is not None and one.memory and one.disk for one in found.values())


def test_the_command_answers_how_large_a_gpu(tmp_path: Path) -> None:
    file, out = tmp_path / "rates.yaml", tmp_path / "estimate.json"
    file.write_text(RATES)
    done = CliRunner().invoke(main, ["estimate", "paper", "--rates", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "GPU hours" in done.output and "takes the most memory" in done.output
    assert "GPUs of 80 GB" in done.output and "of disk more" in done.output
    rows = {row["stage"]: row for row in json.loads(out.read_text())}
    assert rows[layout.SL_CAI_MODEL]["disk"] == 16e9
    twice = CliRunner().invoke(main, ["estimate", "paper", "--rates", str(file), "--measure"])
    assert twice.exit_code == 1 and "only one of --like, --measure and --rates" in twice.output
