"""What was watched while RL went on: small charts of every figure, a stop, and snapshots (pitfall 28)."""

from __future__ import annotations

from typing import NamedTuple

from constitutional_ai.report.contents import Contents
from constitutional_ai.report.drawing import Chart
from constitutional_ai.report.page.charts import curve
from constitutional_ai.runs import layout


class Figure(NamedTuple):
    key: str
    """In ``metrics.jsonl``."""
    title: str
    says: str
    share: bool = False


WATCHED = (
    Figure("reward", "Reward", "The mean of a batch, which RL is to raise."),
    Figure("second_reward", "Score of a preference model that RL never sees", "Should rise with the reward."),
    Figure("kl", "Distance from SL-CAI", "KL divergence; it runs off when RL goes astray."),
    Figure("completions/mean_length", "Tokens in an answer", "Longer for its own sake would be a warning."),
    Figure("words", "Words in an answer", "The same in words."),
    Figure("completions/clipped_ratio", "Cut off", "Share of answers that ran out of tokens.", True),
    Figure("evasive", "Bare refusals", "Share of answers that decline and say no more.", True),
    Figure("boilerplate", "Known boilerplate", "Share that reassures, or offers to listen.", True),
    Figure(
        "shared_sentences",
        "Unknown boilerplate",
        "Share with a sentence that others have, too.",
        True,
    ),
    Figure("degenerate", "Broken", "Share of empty, looping or garbled answers.", True),
    Figure("unscored", "Without a reward", "Share that no reward could be found for.", True),
    Figure("rewards/accuracies", "Pairs told apart", "Share that DPO ranks as their label does.", True),
)


class Reinforcement(NamedTuple):
    charts: list[Chart]
    stopped: str | None
    """Why the training ended early."""
    limits: list[tuple[str, str]]
    """What would have ended it: a figure, and its limit."""
    snapshots: list[tuple[int, str]]
    """Prompts seen, and the folder."""


def reinforcement(contents: Contents) -> Reinforcement:
    asked = contents.recipe.rl_cai.stop_above if contents.recipe else {}
    limits = {str(name): limit for name, limit in asked.items()}
    steps = contents.steps[layout.RL_CAI_MODEL]
    drawn = [
        curve(f.title, f.says, steps, f.key, layout.RL_CAI, level, share=f.share, height=128)
        for f in WATCHED
        for level in [(limits[f.key], "limit") if f.key in limits else None]
    ]
    made = next(
        (s.manifest.notes for s in contents.stages if s.about.name == layout.RL_CAI_MODEL and s.manifest), {}
    )
    return Reinforcement(
        [chart for chart in drawn if chart],
        made.get("stopped"),
        [(name, f"{limit:g}") for name, limit in limits.items() if "stopped" in made],
        [(int(path.name), str(path)) for path in contents.snapshots],
    )
