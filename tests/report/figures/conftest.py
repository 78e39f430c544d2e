"""Three evaluations: of a run with its snapshots, of runs of four sizes, and of models that were named one by one."""

from __future__ import annotations

from pathlib import Path

import evaluation_folders as made
import pytest

from constitutional_ai.records import Candidate

WAYS = ("multiple_choice", "chain_of_thought", "ensembled")
MODES = ("zero_shot", "few_shot", "chain_of_thought")
LONG = "a-run-with-an-exceedingly-long-name-that-nobody-can-read-8b"


def harm_questions(models: list[Candidate]) -> list[made.Metric]:
    return [
        *made.accuracies(models, "harm_identification", MODES),
        *made.accuracies(models, "harm_classification", MODES, 1 / 9),
    ]


@pytest.fixture
def one_run(tmp_path: Path) -> Path:
    models = made.candidates(made.run(tmp_path / "demo"))
    metrics = [
        *made.elos(models),
        *made.accuracies(models, "hhh_accuracy", WAYS),
        made.metric("hhh_accuracy.preference_model", "hh", 0.66, 0.04),
        *made.accuracies(models, "hhh221_accuracy", WAYS),
        *harm_questions(models),
        *made.revisions(["demo"]),
        *made.harmfulness(models),
    ]
    folder = made.evaluation(tmp_path / "demo" / "evaluation", models, metrics)
    rows = [made.chosen("start", "multiple_choice", 0.8), made.chosen("start", "chain_of_thought", 1.5)]
    made.answers(folder, [*rows[0], *rows[1], *made.chosen("sl-cai", "multiple_choice", 1.0)])
    return folder


@pytest.fixture
def four_sizes(tmp_path: Path) -> Path:
    names = ("s135M", "s600M", LONG, "s8B")
    models, metrics = [], made.revisions(names)
    for n, (name, size) in enumerate(zip(names, made.SIZES, strict=True)):
        run = made.run(tmp_path / name, principles=4**n, style="direct" if n % 2 else "critiqued")
        of_this = made.candidates(run, size, before=f"{name}:")
        models += of_this
        metrics += [*made.elos(of_this, lift=25 * n), *made.harmfulness(of_this)]
    metrics += [*made.accuracies(models, "hhh_accuracy", WAYS), *harm_questions(models)]
    return made.evaluation(tmp_path / "sizes", models, metrics)


@pytest.fixture
def named(tmp_path: Path) -> Path:
    models = [Candidate(f"qwen-{s:.2g}", f"hf:{s:.2g}", f"qwen-{s:.2g}", None, int(s)) for s in made.SIZES]
    metrics = [*made.elos(models), *made.accuracies(models, "gate_accuracy", WAYS), *harm_questions(models)]
    return made.evaluation(tmp_path / "named", models, metrics)
