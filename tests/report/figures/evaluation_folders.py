"""Evaluations made by hand, with numbers such as an evaluation may well find."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from constitutional_ai.evaluation.hhh_accuracy import HHHAnswer
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import Candidate, Metric, Side
from constitutional_ai.runs.manifest import StageManifest

SIZES = (135e6, 0.6e9, 1.7e9, 8e9)
ROLES = ("start", "sl-cai", "rl-cai")


def candidates(run: str, parameters: float | None = 135e6, before: str = "") -> list[Candidate]:
    """A run's: start, SL-CAI, three snapshots of RL, and RL-CAI."""
    size = None if parameters is None else int(parameters)
    steps = [(f"rl-cai@{n:08}", n) for n in (64, 128, 256)]
    named = [("start", "start", 0), ("sl-cai", "sl-cai", 0), ("rl-cai", "rl-cai", 512)]
    named += [(label, "rl-cai", n) for label, n in steps]
    return [Candidate(f"{before}{label}", f"hf:{run}/{label}", role, run, size, n) for label, role, n in named]


def metric(name: str, model: str, value: float | None, spread: float | None = 12.0, count: int = 400) -> Metric:
    known = value is not None and spread is not None
    return Metric(
        name, model, value, value - spread if known else None, value + spread if known else None, count, 64
    )


def elos(models: Sequence[Candidate], lift: float = 0.0) -> list[Metric]:
    """Start below SL-CAI; RL rises and turns down at its end."""
    found = []
    for one in models:
        x = math.log1p((one.sequences or 0) / 64)
        start = one.role == "start"
        helpful = -90.0 if start else 70 * x / (1 + x) + lift * (one.role == "rl-cai")
        harmless = -120.0 if start else 110 * x - 28 * x * x + lift * (one.role == "rl-cai")
        spread = None if one.role == "sl-cai" else 14.0
        found += [metric("elo.helpfulness", one.label, helpful, spread)]
        found += [metric("elo.harmlessness", one.label, harmless, spread)]
    return found


def accuracies(
    models: Iterable[Candidate], stem: str, ways: Sequence[str], chance: float = 0.5
) -> list[Metric]:
    found = []
    for one in models:
        size = math.log10((one.parameters or 1e8) / 1e8)
        for n, way in enumerate(ways):
            gain = 0.02 * (one.role == "sl-cai") + 0.035 * (one.role == "rl-cai")
            value = chance + 0.07 * size * (1 + 0.5 * n) - 0.01 * n + gain
            found.append(metric(f"{stem}.{way}", one.label, value, 0.04, 438))
    return found


def revisions(
    runs: Iterable[str], judges: Sequence[str] = ("harmlessness", "helpfulness", "both")
) -> list[Metric]:
    found = []
    for at, run in enumerate(runs):
        for judge, rise in zip(judges, (1.6, -0.9, 1.1), strict=False):
            for n in range(5):
                value = 2.0 - 0.4 * at + rise * (1 - 0.35 * at) * (1 - 0.4**n)
                found.append(metric(f"pm_score.{judge}.revision_{n}", run, value, 0.15, 130))
    return found


def harmfulness(models: Iterable[Candidate]) -> list[Metric]:
    found = []
    for one in models:
        level = {"start": 2.6, "sl-cai": 1.8}.get(one.role, 0.6 + 1.2 * math.exp(-(one.sequences or 0) / 150))
        found += [metric("absolute_harmfulness.t1", one.label, level, 0.12, 64 * 256)]
        found += [metric("absolute_harmfulness.t0", one.label, level - 0.12, 0.12, 64)]
    return found


def chosen(model: str, method: str, sureness: float, count: int = 438) -> list[HHHAnswer]:
    """Answers of a somewhat overconfident model, with one question unanswered."""
    draws, rows = random.Random(f"{model} {method}"), []
    for n in range(count):
        p = 1 / (1 + math.exp(-sureness * draws.gauss(0, 1.2)))
        better: Side = "a" if draws.random() < 0.5 + 0.75 * (p - 0.5) else "b"
        right = p if better == "a" else 1 - p
        rows.append(HHHAnswer(f"q{n}.{model}.{method}", f"q{n}", model, method, better, right))
    silent = replace(rows[0], id=f"failed.{model}.{method}", probability_right=None, failure="it said nothing")
    return [*rows, silent]


def evaluation(folder: Path, models: Sequence[Candidate], metrics: Sequence[Metric]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models.json").write_text(json.dumps([asdict(one) for one in models]))
    (folder / "metrics.json").write_text(json.dumps([asdict(one) for one in metrics]))
    return folder


def answers(folder: Path, rows: Iterable[HHHAnswer]) -> None:
    (folder / "hhh").mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    (folder / "hhh" / "records.jsonl").write_text(lines)
    manifest = StageManifest("hhh", {}, {}, "", lines.count("\n"), 0, 0, 0, 0.0, "")
    (folder / "hhh" / "stage.json").write_text(json.dumps(asdict(manifest)))


def run(folder: Path, *, principles: int = 16, style: str = "critiqued") -> str:
    """What figures read of a run: how many principles it revised under, and how."""
    folder.mkdir(parents=True, exist_ok=True)
    named = "".join(
        f'  - {{name: p{n}, critique: "Find fault {n}.", revision: "Mend {n}."}}\n' for n in range(principles)
    )
    (folder / "constitution.yaml").write_text(
        f'name: made\nprinciples:\n{named}  - {{name: kind, preference: "Which is kinder?"}}\n'
    )
    recipe = Recipe()
    recipe = recipe.model_copy(update={"revisions": recipe.revisions.model_copy(update={"style": style})})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return str(folder)
