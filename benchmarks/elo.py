"""Elo: do its intervals hold the truth, does another library find the same, and how long does it take? ``make bench``.

With QUICK=1 there are a tenth of the tournaments, and the bars of the shares are as much wider as luck then is.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import choix
import numpy as np
from results import Row, report

from constitutional_ai.metrics.elo import EloRating, elo
from constitutional_ai.records import Match

QUICK = bool(os.environ.get("QUICK"))
TOURNAMENTS = 100 if QUICK else 1000
RESAMPLES = 300
ALLOWED = (0.90, 1.0) if QUICK else (0.93, 0.97)
ANCHOR = "sl-cai"
TRUTH = {ANCHOR: 0.0, "h-rlhf": -60.0, "hh-rlhf": 40.0, "rl-cai": 120.0}


def tournament(truth: dict[str, float], count: int, rng: random.Random) -> list[Match]:
    """Matches between two drawn models, each on a prompt of its own, won as often as their ratings say."""
    made = []
    for n in range(count):
        a, b = rng.sample(sorted(truth), 2)
        chance = 1 / (1 + 10 ** ((truth[b] - truth[a]) / 400))
        made.append(Match(str(n), f"p{n}", a, b, "a" if rng.random() < chance else "b"))
    return made


def on_shared_prompts(truth: dict[str, float], prompts: int, rng: random.Random) -> list[Match]:
    """All pairs on each prompt with one draw of each model's reply, as ``cai evaluate`` plays them: a reply that is
    good wins all its matches there. Replies are Gumbel draws around the ratings, so that each pair is as in Elo."""
    scale, made = 400 / np.log(10), []
    for n in range(prompts):
        good = {name: points - scale * float(np.log(rng.expovariate(1))) for name, points in truth.items()}
        names = sorted(truth)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        made += [Match(f"{n}.{a}.{b}", f"p{n}", a, b, "a" if good[a] > good[b] else "b") for a, b in pairs]
    return made


def held(ratings: dict[str, EloRating]) -> list[bool]:
    """For each model but the anchor, whether its interval holds the truth."""
    rated = [(TRUTH[name], one.elo) for name, one in ratings.items() if name != ANCHOR]
    assert all(one.low is not None and one.high is not None for _, one in rated)
    return [(one.low or 0) <= truth <= (one.high or 0) for truth, one in rated]


def coverage(name: str, play: Any, resamples: int, measured: bool = True) -> Row:
    rng, found = random.Random(1), []
    for seed in range(TOURNAMENTS):
        found += held(elo(play(rng), anchor=ANCHOR, resamples=resamples, seed=seed))
    share = float(np.mean(found))
    bar = f"{ALLOWED[0]} to {ALLOWED[1]}" if measured else ""
    return Row(
        f"{name}, {len(found)} intervals",
        share,
        "share",
        bar,
        not measured or ALLOWED[0] <= share <= ALLOWED[1],
    )


def furthest_from_choix(tournaments: int = 20 if QUICK else 200) -> float:
    """In points, over tournaments of 2 to 12 models."""
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
    rng = random.Random(4)
    matches = tournament({f"m{n}": rng.gauss(0, 100) for n in range(20)}, 50_000, rng)
    began = time.process_time()  # what else the machine does counts for nothing
    found = elo(matches, anchor="m0", resamples=1000)
    seconds = time.process_time() - began
    assert all(one.unrated is None for one in found.values())
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
            Row("20 models, 50,000 matches, 1,000 resamples", seconds, "s of CPU", "under 2", seconds < 2),
            Row("furthest from choix", away, "Elo", "under 0.5", away < 0.5),
            coverage("95 % intervals of Fisher, prompts of their own", alone, 0),
            coverage("95 % bootstrap intervals, prompts of their own", alone, RESAMPLES),
            coverage("95 % bootstrap intervals, all pairs on each prompt", shared, RESAMPLES),
            coverage("95 % intervals of Fisher, all pairs on each prompt", shared, 0, measured=False),
        ],
    )


if __name__ == "__main__":
    main()
