"""Does the pipeline find a preference that was planted, and does it find nothing where there is none?

A scripted feedback model likes replies that ask a question back. From its labels the preference model must learn that,
and each algorithm must raise the share of such replies, from one start. With coin flips for labels, nothing may move.

``make planted``: minutes on a CPU. Exits with 1 when a claim does not hold.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

from results import Row, report
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
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai.respond import respond

RECIPE, RUNS = Path(__file__).with_suffix(".yaml"), Path("runs/planted")
ARMS = {
    "rloo": ("asks-back", ["rl_cai.algorithm=rloo"]),
    "grpo": ("asks-back", ["rl_cai.algorithm=grpo"]),
    # Its advantages are whitened whatever the scores' spread: at the others' rate it would pass the limit of KL.
    "ppo": (
        "asks-back",
        ["rl_cai.algorithm=ppo", "rl_cai.answers=1", "rl_cai.epochs=8", "rl_cai.learning_rate=5e-4"],
    ),
    "rloo, coin flips": ("coin-flips", ["rl_cai.algorithm=rloo"]),
}
SAMPLES = 8
"""Answers to each of the 32 held-out prompts."""
RISE, STILL, ACCURACY = 0.30, 0.10, 0.95


def make(name: str, start: Path | None, changes: list[str], until: str, console: Console) -> Run:
    """A run under ``runs/planted/``, going on from a copy of ``start``."""
    out = RUNS / name.replace(", ", "-").replace(" ", "-")
    if start and not out.exists():
        shutil.copytree(start, out)
    recipe = load_recipe(str(RECIPE), [f"out={out}", *changes])
    with Bars(console) as bars:
        return run_pipeline(recipe, progress=bars, notify=bars.say, until=until)


def asks_back(name: str, model: str) -> Metric:
    """Share of answers to held-out prompts with a question in them, at temperature 1."""
    prompts = load_prompts(str(RECIPE.with_suffix(".jsonl")), "red_team").held_out
    sampling = Sampling(temperature=1.0, max_tokens=28)

    async def answers() -> list[str]:
        with loaded(model) as policy:
            said = [
                respond(prompt, number=number, model=policy, sampling=sampling, seed=0)
                for prompt in prompts
                for number in range(SAMPLES)
            ]
            return [response.text for response in await asyncio.gather(*said)]

    return rate("asks_back", name, ["?" in text for text in asyncio.run(answers())])


def kl_of(run: Run) -> float:
    """Nats a token, mean over the last three steps, as the trainer logs it."""
    lines = (run.stage("07-rl-cai-model") / "metrics.jsonl").read_text().splitlines()
    return fmean(json.loads(line)["kl"] for line in lines[-3:])


def accuracy_of(run: Run) -> dict[str, Any]:
    sources = json.loads((run.stage("06-preference-model") / "report.json").read_text())["sources"]
    (found,) = [source["accuracy"] for source in sources if source["source"] == "ai"]
    return dict(found)


def main() -> None:
    quiet_libraries()
    console = Console(highlight=False)
    start = make("start", None, [], "04-comparisons", console)
    before = asks_back("start", f"hf:{start.stage('03-sl-cai-model') / 'model'}")
    labelled: dict[str, Run] = {}
    rows = [
        Row(
            f"start: asks back in {before.low:.2f} to {before.high:.2f}, n {before.count}",
            before.value or 0,
            "share",
            "",
        )
    ]
    for name, (judge, changes) in ARMS.items():
        judged = [f"models.feedback=scripted:{judge}"]
        if judge not in labelled:
            labelled[judge] = make(judge, start.folder, judged, "06-preference-model", console)
        run = make(name, labelled[judge].folder, [*judged, *changes], "07-rl-cai-model", console)
        after = asks_back(name, f"hf:{run.stage('07-rl-cai-model') / 'model'}")
        rows += rows_of(name, judge, run, before, after)
    report("planted", rows)


def rows_of(name: str, judge: str, run: Run, before: Metric, after: Metric) -> list[Row]:
    assert before.value is not None and after.value is not None
    rise, kl, limit = after.value - before.value, kl_of(run), load_recipe(str(RECIPE)).rl_cai.stop_above["kl"]
    planted = judge == "asks-back"
    right = accuracy_of(run)
    known = f"{name}: preference model right on held-out pairs, n {right['count']}"
    learned = right["value"] >= ACCURACY
    bar = f"{RISE:+.2f} or more" if planted else f"within {STILL:.2f}"
    return [
        Row(known, right["value"], "share", f"{ACCURACY} or more" if planted else "", learned or not planted),
        share(name, after),
        Row(f"{name}: change", rise, "share", bar, rise >= RISE if planted else abs(rise) <= STILL),
        Row(f"{name}: KL from the start", kl, "nats/token", f"at most {limit:g}", kl <= limit),
    ]


def share(name: str, asked: Metric) -> Row:
    assert asked.value is not None
    return Row(
        f"{name}: asks back ({asked.low:.2f} to {asked.high:.2f}, n {asked.count})", asked.value, "share", ""
    )


if __name__ == "__main__":
    main()
