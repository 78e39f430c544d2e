"""How well the embedded model's predicates agree with people, beside our patterns on the same answers.

The patterns detect refusals. Of harm they say only that an answer which refuses does none. AUCs are of all readings,
whatever their label mass; in use, a reading whose labels hold less than half of the probability is a failure. All
intervals resample whole prompts.

It asks 500 questions one after another, about ten minutes on 2 cores without AMX.

python benchmarks/predicates.py [FOLDER]   FOLDER has scored-responses.jsonl.gz and xstest-*.jsonl.gz
MODEL=NAME: another judge
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectors import COMPLIES, SHARED, metric_row, read_rows
from results import Row, report

from constitutional_ai.cli.app import quiet_libraries
from constitutional_ai.data.ratings import load_ratings
from constitutional_ai.detectors.objection import objection
from constitutional_ai.evaluation.harmfulness.fit_regressor import HARMFUL as HARMFUL_RATING
from constitutional_ai.metrics.intervals import rate
from constitutional_ai.metrics.rank_agreement import auc, resampled
from constitutional_ai.models.abilities import DecisionQuestion, Reading, decider
from constitutional_ai.models.load import loaded
from constitutional_ai.models.model import Model
from constitutional_ai.records import Conversation, Message
from constitutional_ai.rl_cai.feedback.decision import LOWEST_MASS, state_of
from constitutional_ai.rl_cai.feedback.predicates import HARMFUL, REFUSES

MODEL = os.environ.get("MODEL", "bundled:smollm2-135m")
SEED, REFUSALS, HARMS = 0, 300, 200


class Labelled(NamedTuple):
    """A conversation with an answer, what people say of it, and what the patterns score it."""

    conversation: Conversation
    truth: bool
    patterns: float

    @property
    def prompt(self) -> str:
        return self.conversation[0].content


def refusals(folder: Path) -> list[Labelled]:
    """Return a sample of XSTest's answers; a refusal may be partial."""
    rows = [row for path in sorted(folder.glob("xstest-*.jsonl.gz")) for row in read_rows(path)]
    return [
        Labelled(
            (Message("user", row["prompt"]), Message("assistant", row["completion"])),
            row["final_label"] != COMPLIES,
            float(objection(row["completion"])),
        )
        for row in random.Random(SEED).sample(rows, REFUSALS)
    ]


def harms(folder: Path) -> list[Labelled]:
    """Return a sample of PyRIT's rated answers."""
    rated = load_ratings(folder / "scored-responses.jsonl.gz").usable
    return [
        Labelled(
            one.conversation, one.rating >= HARMFUL_RATING, -float(objection(one.conversation[-1].content))
        )
        for one in random.Random(SEED).sample(rated, HARMS)
    ]


async def readings(model: Model, predicate: DecisionQuestion, items: Sequence[Labelled]) -> list[Reading]:
    """Ask the predicate of each answer, one after another, as the pipeline would."""
    judge, answers = decider(model), []
    for number, one in enumerate(items):
        answers.append(await judge.decide(state_of(one.conversation), predicate))
        if number % 50 == 49:
            print(f"{number + 1} of {len(items)}", flush=True)
    return answers


def area(name: str, items: Sequence[Labelled], scores: Sequence[float]) -> Row:
    truth, prompts = [one.truth for one in items], [one.prompt for one in items]
    return metric_row(f"{name}: AUC", resampled("auc", name, auc, scores, truth, prompts, seed=SEED))


def measured(name: str, items: Sequence[Labelled], answers: Sequence[Reading]) -> list[Row]:
    """Return the AUC of the predicate and of the patterns, and how many readings hold enough mass."""
    enough = [(reading.label_mass or 0) >= LOWEST_MASS for reading in answers]
    usable = rate("usable", name, enough)
    says_yes = rate("yes", name, [reading.probabilities[0] > 0.5 for reading in answers])
    people = rate("people", name, [one.truth for one in items])
    rows = [
        area(f"{name}: predicate", items, [reading.probabilities[0] for reading in answers]),
        area(f"{name}: our patterns", items, [one.patterns for one in items]),
    ]
    rows += [
        Row(
            f"{name}: {what}",
            metric.value or 0,
            f"({metric.low:.2f} to {metric.high:.2f}), {len(items)} answers",
        )
        for what, metric in (
            (f"share of readings with a label mass of {LOWEST_MASS} or more", usable),
            ("share of readings above one half", says_yes),
            ("share that people call so", people),
        )
    ]
    return rows


def main() -> None:
    quiet_libraries()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    if not (folder / "scored-responses.jsonl.gz").exists():
        print(f"Predicates are not measured: {folder} has no labelled answers. Name a folder that has them.")
        return
    rows = []
    with loaded(MODEL) as model:
        for name, predicate, items in (
            ("refusals", REFUSES, refusals(folder)),
            ("harm", HARMFUL, harms(folder)),
        ):
            rows += measured(name, items, asyncio.run(readings(model, predicate, items)))
    report("predicates", rows)


if __name__ == "__main__":
    main()
