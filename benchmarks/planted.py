"""Whether the pipeline learns a preference that was planted in the labels, and learns nothing where there is none.

A scripted feedback model prefers replies that ask a question. The preference model must learn this from its labels, and
each algorithm must raise the share of such replies from the same start; so must the rewards that need no preference
model. With coin flips for labels the share must stay.

``make planted`` takes minutes on a CPU. It exits with 1 when a bar is missed. Names of variants as arguments run these
alone, and are reported as ``planted_selected``, so that the rows of all stay.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from results import Row, at_least, report
from rich.console import Console

from constitutional_ai.cli.app import quiet_libraries
from constitutional_ai.cli.progress import Bars
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.metrics.intervals import rate
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Sampling
from constitutional_ai.pipeline import run_pipeline
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Metric
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai.respond import respond

RECIPE, RUNS = Path(__file__).with_suffix(".yaml"), Path("runs/planted")
PLANTED, NOTHING = "asks-back", "coin-flips"
"""The scripted feedback models."""
VARIANTS = {
    "rloo": (PLANTED, ["rl_cai.algorithm=rloo"]),
    "grpo": (PLANTED, ["rl_cai.algorithm=grpo"]),
    # PPO whitens advantages whatever the spread of the scores: at the others' learning rate it would pass the KL limit.
    "ppo": (
        PLANTED,
        ["rl_cai.algorithm=ppo", "rl_cai.answers=1", "rl_cai.epochs=8", "rl_cai.learning_rate=5e-4"],
    ),
    "rloo, groupwise": (PLANTED, ["rl_cai.algorithm=rloo", "rl_cai.reward=groupwise", "rl_cai.neighbours=1"]),
    "grpo, groupwise": (PLANTED, ["rl_cai.algorithm=grpo", "rl_cai.reward=groupwise", "rl_cai.neighbours=1"]),
    "rloo, propositions": (PLANTED, ["rl_cai.algorithm=rloo", "rl_cai.reward=propositions"]),
    "grpo, propositions": (PLANTED, ["rl_cai.algorithm=grpo", "rl_cai.reward=propositions"]),
    "rloo, coin flips": (NOTHING, ["rl_cai.algorithm=rloo"]),
}
SAMPLES = 8
"""Answers to each of the 32 held-out prompts."""
RISE, STILL, ACCURACY = 0.30, 0.10, 0.95
"""The least rise of the share, its largest change with coin flips, and the least accuracy of the preference model."""


def run_until(name: str, start: Path | None, changes: list[str], until: str, console: Console) -> Run:
    """Run the recipe with ``changes`` in ``runs/planted/``, from a copy of ``start``, up to the stage ``until``."""
    out = RUNS / name.replace(", ", "-").replace(" ", "-")
    if start and not out.exists():
        shutil.copytree(start, out)
    recipe = load_recipe(str(RECIPE), [f"out={out}", *changes])
    with Bars(console) as bars:
        return run_pipeline(recipe, progress=bars, notify=bars.say, until=until)


def share_of_questions(name: str, model: str) -> Metric:
    """Return the share of answers to held-out prompts, at temperature 1, with a question in them."""
    prompts = load_prompts(str(RECIPE.with_suffix(".jsonl")), "red_team").held_out
    sampling = Sampling(temperature=1.0, max_tokens=28)

    async def answers() -> list[str]:
        with loaded(model) as policy:
            responses = [
                respond(prompt, number=number, model=policy, sampling=sampling, seed=0)
                for prompt in prompts
                for number in range(SAMPLES)
            ]
            return [response.text for response in await asyncio.gather(*responses)]

    return rate("questions", name, ["?" in text for text in asyncio.run(answers())])


def kl_of(run: Run) -> float:
    """Return the KL in nats per token that the trainer logged, as the mean over the last three steps."""
    lines = (run.stage(layout.RL_CAI_MODEL) / layout.STEPS).read_text().splitlines()
    return fmean(json.loads(line)["kl"] for line in lines[-3:])


def accuracy_of(run: Run) -> dict[str, Any]:
    """Return the preference model's accuracy on held-out pairs, with its count."""
    sources = json.loads((run.stage(layout.PREFERENCE_MODEL) / "report.json").read_text())["sources"]
    (accuracy,) = [source["accuracy"] for source in sources if source["source"] == "ai"]
    return dict(accuracy)


def main() -> None:
    quiet_libraries()
    console = Console(highlight=False)
    start = run_until("start", None, [], layout.COMPARISONS, console)
    before = share_of_questions("start", f"hf:{start.stage(layout.SL_CAI_MODEL) / layout.WEIGHTS}")
    labelled: dict[str, Run] = {}
    rows = [share_row("start", before)]
    for name in sys.argv[1:] or VARIANTS:
        judge, changes = VARIANTS[name]
        feedback = [f"models.feedback=scripted:{judge}"]
        before_rl = start
        if load_recipe(str(RECIPE), changes).rl_cai.uses_preference_model:
            if judge not in labelled:
                labelled[judge] = run_until(judge, start.folder, feedback, layout.PREFERENCE_MODEL, console)
            before_rl = labelled[judge]
        run = run_until(name, before_rl.folder, [*feedback, *changes], layout.RL_CAI_MODEL, console)
        after = share_of_questions(name, f"hf:{run.stage(layout.RL_CAI_MODEL) / layout.WEIGHTS}")
        rows += rows_of(name, judge == PLANTED, run, before, after)
    report("planted_selected" if sys.argv[1:] else "planted", rows)


def rows_of(name: str, planted: bool, run: Run, before: Metric, after: Metric) -> list[Row]:
    """Return the rows of one variant."""
    assert before.value is not None and after.value is not None
    change, kl, limit = after.value - before.value, kl_of(run), load_recipe(str(RECIPE)).rl_cai.stop_above["kl"]
    bar = f"at least {RISE:+.2f}" if planted else f"within {STILL:.2f}"
    return [
        *accuracy_rows(name, planted, run),
        share_row(name, after),
        Row(f"{name}: change", change, "share", bar, change >= RISE if planted else abs(change) <= STILL),
        Row(f"{name}: KL from the start", kl, "nats/token", f"at most {limit:g}", kl <= limit),
    ]


def accuracy_rows(name: str, planted: bool, run: Run) -> list[Row]:
    """Return the row of the preference model; none if the reward is another."""
    if not load_recipe(str(run.folder / layout.RECIPE)).rl_cai.uses_preference_model:
        return []
    accuracy = accuracy_of(run)
    what = f"{name}: accuracy of the preference model on held-out pairs, n {accuracy['count']}"
    return [at_least(what, accuracy["value"], "share", ACCURACY if planted else None)]


def share_row(name: str, share: Metric) -> Row:
    assert share.value is not None
    interval = f"({share.low:.2f} to {share.high:.2f}, n {share.count})"
    return Row(f"{name}: asks a question {interval}", share.value, "share")


if __name__ == "__main__":
    main()
