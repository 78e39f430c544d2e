"""Whether RL finds a preference against length: a scripted feedback model prefers the reply with fewer words.

Answers tend to grow under RL, and a preference model that merely likes length would pass a test whose winners are long.
Here the winner of each pair is shorter than the average answer, so the answers must shrink, on held-out prompts. It is
`planted.py` otherwise, from the same start, and its own minutes: ``python benchmarks/planted_brief.py``.
"""

from __future__ import annotations

import asyncio
from statistics import fmean

from planted import RECIPE, SAMPLES, accuracy_of, kl_of, run_until
from results import Row, at_least, report
from rich.console import Console

from constitutional_ai.cli.app import quiet_libraries
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.metrics.intervals import cluster_bootstrap
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Sampling
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Comparison, Metric, PreferenceLabel
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Run
from constitutional_ai.sl_cai.respond import respond

JUDGE = "fewer-words"
FALL, ACCURACY = 3.0, 0.80
"""The least fall of the mean number of words, and the least accuracy of the preference model."""


def words(name: str, model: str) -> Metric:
    """Return the mean number of words of answers to held-out prompts at temperature 1; intervals resample prompts."""
    prompts = load_prompts(str(RECIPE.with_suffix(".jsonl")), "red_team").held_out
    sampling = Sampling(temperature=1.0, max_tokens=28)
    numbered = [(prompt, number) for prompt in prompts for number in range(SAMPLES)]

    async def answers() -> list[str]:
        with loaded(model) as policy:
            asked = [respond(*each, model=policy, sampling=sampling, seed=0) for each in numbered]
            return [response.text for response in await asyncio.gather(*asked)]

    counts = [float(len(text.split())) for text in asyncio.run(answers())]
    return cluster_bootstrap("words", name, counts, [prompt.id for prompt, _ in numbered], seed=0)


def words_of_winners(run: Run) -> tuple[float, float]:
    """Return the mean number of words of the preferred answers, and of all answers."""
    labels = run.rows(layout.PREFERENCE_LABELS, PreferenceLabel)
    winners = [x.comparison.a if x.probability_a > 0.5 else x.comparison.b for x in labels]
    every = [one for pair in run.rows(layout.COMPARISONS, Comparison) for one in (pair.a, pair.b)]
    return fmean(len(one.text.split()) for one in winners), fmean(len(one.text.split()) for one in every)


def words_row(name: str, measured: Metric) -> Row:
    assert measured.value is not None
    interval = f"({measured.low:.1f} to {measured.high:.1f}, n {measured.count})" if measured.low else ""
    return Row(f"{name}: words of an answer {interval}", measured.value, "words")


def main() -> None:
    quiet_libraries()
    console = Console(highlight=False)
    changes = [f"models.feedback=scripted:{JUDGE}", "rl_cai.algorithm=rloo"]
    start = run_until("start", None, [], layout.COMPARISONS, console)
    run = run_until("rloo, fewer words", start.folder, changes, layout.RL_CAI_MODEL, console)
    before, after = [
        words(name, f"hf:{run.stage(stage) / layout.WEIGHTS}")
        for name, stage in (("start", layout.SL_CAI_MODEL), ("rloo", layout.RL_CAI_MODEL))
    ]
    assert before.value is not None and after.value is not None
    accuracy, kl, limit = accuracy_of(run), kl_of(run), load_recipe(str(RECIPE)).rl_cai.stop_above["kl"]
    preferred, every = words_of_winners(run)
    fall = before.value - after.value
    name = f"accuracy of the preference model on held-out pairs, n {accuracy['count']}"
    report(
        "planted_brief",
        [
            Row("words of the preferred answers", preferred, "words", f"under {every:.1f}", preferred < every),
            at_least(name, accuracy["value"], "share", ACCURACY),
            words_row("start", before),
            words_row("rloo", after),
            at_least("rloo: fall", fall, "words", FALL),
            Row("rloo: KL from the start", kl, "nats/token", f"at most {limit:g}", kl <= limit),
        ],
    )


if __name__ == "__main__":
    main()
