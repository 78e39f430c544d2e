"""Elo ratings: how often intervals hold the truth, agreement with another library, and time. ``make bench``.

QUICK=1 plays a tenth of the tournaments. The bars of coverage are wider then, by as much as chance is.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import choix
import numpy as np
from results import Row, report, under

from constitutional_ai.metrics.elo import EloRating, elo
from constitutional_ai.records import Match

QUICK = bool(os.environ.get("QUICK"))
TOURNAMENTS = 100 if QUICK else 1000
RESAMPLES = 300
ALLOWED = (0.90, 1.0) if QUICK else (0.93, 0.97)
ANCHOR = "sl-cai"
TRUTH = {ANCHOR: 0.0, "h-rlhf": -60.0, "hh-rlhf": 40.0, "rl-cai": 120.0}


def tournament(truth: dict[str, float], count: int, rng: random.Random) -> list[Match]:
    """Return matches of two random models, each on its own prompt, won with the probability that Elo gives."""
    matches = []
    for n in range(count):
        a, b = rng.sample(sorted(truth), 2)
        chance = 1 / (1 + 10 ** ((truth[b] - truth[a]) / 400))
        matches.append(Match(str(n), f"p{n}", a, b, "a" if rng.random() < chance else "b"))
    return matches


def on_shared_prompts(truth: dict[str, float], prompts: int, rng: random.Random) -> list[Match]:
    """Return matches of all pairs on each prompt, with one reply of each model, as ``cai evaluate`` plays them.

    A good reply wins all its matches on its prompt. The quality of replies has a Gumbel distribution around the
    ratings, so that each pair by itself is as in Elo.
    """
    scale, matches = 400 / np.log(10), []
    for n in range(prompts):
        quality = {name: points - scale * float(np.log(rng.expovariate(1))) for name, points in truth.items()}
        names = sorted(truth)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        matches += [
            Match(f"{n}.{a}.{b}", f"p{n}", a, b, "a" if quality[a] > quality[b] else "b") for a, b in pairs
        ]
    return matches


def held(ratings: dict[str, EloRating]) -> list[bool]:
    """Return whether the interval holds the truth, for each model but the anchor."""
    rated = [(TRUTH[name], one.elo) for name, one in ratings.items() if name != ANCHOR]
    assert all(one.low is not None and one.high is not None for _, one in rated)
    return [(one.low or 0) <= truth <= (one.high or 0) for truth, one in rated]


def coverage(name: str, play: Any, resamples: int, barred: bool = True) -> Row:
    """Return the share of intervals that hold the truth."""
    rng, outcomes = random.Random(1), []
    for seed in range(TOURNAMENTS):
        outcomes += held(elo(play(rng), anchor=ANCHOR, resamples=resamples, seed=seed))
    share, (low, high), name = float(np.mean(outcomes)), ALLOWED, f"{name}, {len(outcomes)} intervals"
    return (
        Row(name, share, "share", f"{low} to {high}", low <= share <= high)
        if barred
        else Row(name, share, "share")
    )


def furthest_from_choix(tournaments: int = 20 if QUICK else 200) -> float:
    """Return the largest difference from choix in points, over tournaments of 2 to 12 models."""
    rng, furthest = random.Random(2), 0.0
    for _ in range(tournaments):
        truth = {f"m{n:02}": rng.gauss(0, 150) for n in range(rng.randint(2, 12))}
        matches = tournament(truth, 400, rng)
        ours = elo(matches, anchor="m00")
        names = sorted(truth)
        if any(ours[name].unrated for name in names):
            continue
        wins = [(m.a, m.b) if m.winner == "a" else (m.b, m.a) for m in matches]
        theirs = choix.opt_pairwise(
            len(names), [(names.index(w), names.index(loser)) for w, loser in wins], alpha=0, tol=1e-10
        )
        points = 400 / np.log(10) * (theirs - theirs[0])
        furthest = max(furthest, *(abs(points[n] - (ours[m].elo.value or 0)) for n, m in enumerate(names)))
    return float(furthest)


def seconds_of_fifty_thousand() -> float:
    """Return the CPU time for 50,000 matches of 20 models."""
    rng = random.Random(4)
    matches = tournament({f"m{n}": rng.gauss(0, 100) for n in range(20)}, 50_000, rng)
    start = time.process_time()  # other work on the machine does not count
    ratings = elo(matches, anchor="m0", resamples=1000)
    seconds = time.process_time() - start
    assert all(one.unrated is None for one in ratings.values())
    return seconds


def main() -> None:
    def alone(rng: random.Random) -> list[Match]:
        return tournament(TRUTH, 300, rng)

    def shared(rng: random.Random) -> list[Match]:
        return on_shared_prompts(TRUTH, 100, rng)

    seconds, away = min(seconds_of_fifty_thousand() for _ in range(3)), furthest_from_choix()
    report(
        "elo",
        [
            under("20 models, 50,000 matches, 1,000 resamples", seconds, "s of CPU", 2),
            under("furthest from choix", away, "Elo", 0.5),
            coverage("95 % Fisher intervals, each match on its own prompt", alone, 0),
            coverage("95 % bootstrap intervals, each match on its own prompt", alone, RESAMPLES),
            coverage("95 % bootstrap intervals, all pairs on each prompt", shared, RESAMPLES),
            # Fisher's intervals take matches for independent, which these are not.
            coverage("95 % Fisher intervals, all pairs on each prompt", shared, 0, barred=False),
        ],
    )


if __name__ == "__main__":
    main()
