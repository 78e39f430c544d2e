"""Show what the monitor of RL logged: a small chart of every number, an early stop, and snapshots (pitfall 28)."""

from __future__ import annotations

from typing import NamedTuple

from constitutional_ai.report.contents import Contents
from constitutional_ai.report.drawing import Chart
from constitutional_ai.report.page.charts import curve
from constitutional_ai.runs import layout


class Logged(NamedTuple):
    """A number that a training logs, as the page shows it."""

    key: str
    """Its key in ``metrics.jsonl``."""
    title: str
    caption: str
    share: bool = False


WATCHED = (
    Logged("reward", "Reward", "Mean of a batch: what RL maximises."),
    Logged(
        "second_reward", "Score of a preference model that RL never sees", "It should rise with the reward."
    ),
    Logged("kl", "Distance from SL-CAI", "KL divergence; it grows fast when RL fails."),
    Logged("completions/mean_length", "Tokens in an answer", "Growth without a reason is a warning."),
    Logged("words", "Words in an answer", "The same, in words."),
    Logged("completions/clipped_ratio", "Cut off", "Share of answers that ran out of tokens.", True),
    Logged("evasive", "Bare refusals", "Share of answers that decline and say no more.", True),
    Logged("boilerplate", "Known boilerplate", "Share of answers that reassure or offer to listen.", True),
    Logged(
        "shared_sentences", "Unknown boilerplate", "Share of answers with a sentence that others share.", True
    ),
    Logged("degenerate", "Broken", "Share of empty, looping or garbled answers.", True),
    Logged("unscored", "Without a reward", "Share of answers without a reward.", True),
    Logged("rewards/accuracies", "Pairs told apart", "Share of pairs that DPO ranks like their label.", True),
)


class Reinforcement(NamedTuple):
    """The course of a training by RL."""

    charts: list[Chart]
    stopped: str | None
    """Why the training stopped early."""
    limits: list[tuple[str, str]]
    """Names and limits of the numbers that would have stopped it."""
    snapshots: list[tuple[int, str]]
    """Prompts seen, and the folder."""


def reinforcement(contents: Contents) -> Reinforcement:
    stop_above = contents.recipe.rl_cai.stop_above if contents.recipe else {}
    limits = {str(name): limit for name, limit in stop_above.items()}
    steps = contents.steps[layout.RL_CAI_MODEL]
    drawn = [
        curve(f.title, f.caption, steps, f.key, layout.RL_CAI, level, share=f.share, height=128)
        for f in WATCHED
        for level in [(limits[f.key], "limit") if f.key in limits else None]
    ]
    notes = next(
        (s.manifest.notes for s in contents.stages if s.about.name == layout.RL_CAI_MODEL and s.manifest), {}
    )
    return Reinforcement(
        [chart for chart in drawn if chart],
        notes.get("stopped"),
        [(name, f"{limit:g}") for name, limit in limits.items() if "stopped" in notes],
        [(int(path.name), str(path)) for path in contents.snapshots],
    )
