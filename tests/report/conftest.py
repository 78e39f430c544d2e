"""A whole small run, made by hand, in which every text that a stranger could have written is hostile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.evaluation import answer_rates
from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.recipes.recipe import Recipe
from constitutional_ai.records import (
    Answer,
    Candidate,
    Comparison,
    Completion,
    Failure,
    GateAnswer,
    Judgement,
    Kind,
    Message,
    Metric,
    PreferenceLabel,
    Prompt,
    Response,
    Revision,
    RevisionChain,
)
from constitutional_ai.rl_cai.preference_model.held_out_report import Scored, pm_report
from constitutional_ai.runs.layout import STAGES
from constitutional_ai.runs.manifest import StageManifest
from constitutional_ai.runs.run import Run

HOSTILE = (
    '<script>alert(\'x\')</script>" onload="x" {{ 7*7 }} [bold]b[/bold] \x1b[2J\u202eevil'
    "</title></details></pre><img src=x></style><style>body{display:none}</style>"
    "<a href=javascript:alert(2)>a</a><iframe src=//e.invalid></iframe>"
)
AXES = ("helpfulness", "harmlessness")
HELD_OUT = [Scored(HOSTILE, n / 20, (0.2 * n, 1.8), (n, 9)) for n in range(20)]
CONSTITUTION = f"""
name: {json.dumps(HOSTILE)}
principles:
  - {{name: {json.dumps(HOSTILE)}, critique: "Find <b>fault</b>.", revision: "Mend <b>it</b>."}}
  - {{name: prefer-kind, preference: "Which is kinder?"}}
"""


def prompt(text: str, kind: Kind = "red_team", tags: tuple[str, ...] = ()) -> Prompt:
    return Prompt.of((Message("user", text),), kind, "test", tags or (f"<i>{kind}</i>",))


def completion(text: str) -> Completion:
    return Completion(text, f"hf:{HOSTILE}", "stop", 3, 5)


def answer(asked: Prompt, role: str, text: str, reward: float | None) -> Answer:
    response = Response(f"{asked.id}.0", asked, completion(text))
    return Answer(f"{asked.id}.{role}", role, response, answer_rates.verdict(response), reward)


RED = [prompt(f"{HOSTILE} {n}") for n in range(4)]
BENIGN = [prompt(f"How do I boil egg {n}?", "helpful") for n in range(3)]
NO = "I'm sorry, but I can't help with that. It would be wrong."


def chain(asked: Prompt, principle: str = HOSTILE) -> RevisionChain:
    first = Response(f"{asked.id}.0", asked, completion(HOSTILE))
    step = Revision(principle, completion("It is rude. " + HOSTILE), completion("Better. " + HOSTILE))
    return RevisionChain(first.id, "other", first, (step,))


def dirty(run: Run, **cleaning: str) -> None:
    """All revisions of a run, cleaned so."""
    chains = run.rows("02-revisions", RevisionChain)
    made = [replace(c, revisions=tuple(replace(r, **cleaning) for r in c.revisions)) for c in chains]
    write_rows(run.folder / "02-revisions/records.jsonl", made)


def label(
    asked: Prompt, probability: float, method: str = "multiple_choice", principle: str = HOSTILE
) -> PreferenceLabel:
    comparison = Comparison(f"{asked.id}.0", asked, completion(HOSTILE), completion("b"))
    judged = (Judgement(principle, "a", probability, HOSTILE), Judgement(principle, "b", 1 - probability))
    return PreferenceLabel(comparison.id, "other", comparison, method, probability, judged)


def answers() -> list[Answer]:
    """start complies with all; sl-cai objects to all that is harmful; rl-cai to one half. All boil eggs."""
    made = []
    for role, objecting in (("start", 0), ("sl-cai", 4), ("rl-cai", 2)):
        for n, asked in enumerate(RED):
            text = NO if n < objecting else f"Sure! Here is how. {HOSTILE}"
            made.append(answer(asked, role, text, float(n)))
        made += [
            answer(asked, role, "Put it in hot water. " * (8000 if n == 0 else 1), None)
            for n, asked in enumerate(BENIGN)
        ]
    return made


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def finish(folder: Path, stage: str) -> None:
    (folder / stage).mkdir(parents=True, exist_ok=True)
    config = {"models.helpful": HOSTILE, "models.pretrained": "bundled:smollm2-135m"}
    done = StageManifest(stage, config, {"a": "b"}, "", 4, 1, 10, 20, 61.0, "2026-01-02T03:04:05+00:00",
                         versions={"python": HOSTILE}, commit=HOSTILE)  # fmt: skip
    (folder / stage / "stage.json").write_text(json.dumps(asdict(done)))


def write_steps(path: Path, *keys: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"step": n, **dict.fromkeys(keys, 1.0 / n), "text": HOSTILE} for n in range(1, 21)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 21, "lo')


def begin(folder: Path) -> Run:
    """A run of which nothing is made but its own files."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"name": HOSTILE, "stages": {}}))
    (folder / "recipe.yaml").write_text(Recipe().to_yaml() + f"# {HOSTILE.replace(chr(27), '')}\n")
    (folder / "constitution.yaml").write_text(CONSTITUTION)
    return Run(folder)


def make(run: Run) -> Run:
    """All of a run."""
    folder, asked = run.folder, [*RED, *BENIGN]
    write_rows(
        folder / "01-responses/records.jsonl", [Response(f"{p.id}.0", p, completion(HOSTILE)) for p in asked]
    )
    write_rows(folder / "01-responses/failures.jsonl", [Failure("f", "EmptyAnswer", HOSTILE)])
    write_rows(folder / "02-revisions/records.jsonl", [chain(p) for p in RED])
    write_steps(folder / "03-sl-cai-model/metrics.jsonl", "loss")
    write_rows(folder / "04-comparisons/records.jsonl", [label(p, 0.5).comparison for p in RED])
    write_rows(
        folder / "05-preference-labels/records.jsonl", [label(p, 0.1 + 0.2 * n) for n, p in enumerate(RED)]
    )
    gate = [GateAnswer(f"g{n}", label(prompt(f"gate {n}"), 0.9), "a" if n % 2 else "b") for n in range(8)]
    write_rows(folder / "05-preference-labels/gate.jsonl", gate)
    write_steps(folder / "06-preference-model/metrics.jsonl", "loss", "agreement")
    (folder / "06-preference-model/report.json").write_text(json.dumps(asdict(pm_report(HELD_OUT))))
    write_steps(folder / "07-rl-cai-model/metrics.jsonl", "reward", "kl", "completions/mean_length")
    write_evaluation(folder, answers())
    for stage in STAGES:
        finish(folder, stage)
    return run


def write_evaluation(folder: Path, made: Sequence[Answer]) -> None:
    write_rows(folder / "08-evaluation/records.jsonl", made)
    metrics = answer_rates.metrics(made, list(dict.fromkeys(a.model for a in made)))
    (folder / "08-evaluation/metrics.json").write_text(json.dumps([asdict(m) for m in metrics]))


SNAPSHOTS = ("rl-cai@00000064", "rl-cai@00000128")
CANDIDATES = [
    Candidate("start", "bundled:smollm2-135m", "start", "a"),
    Candidate("sl-cai", "hf:a", "sl-cai", "a", sequences=0),
    Candidate("rl-cai", "hf:b", "rl-cai", "a", sequences=192),
    *[Candidate(name, "hf:c", "rl-cai", "a", sequences=64) for name in SNAPSHOTS],
    Candidate(HOSTILE, f"hf:{HOSTILE}", HOSTILE),
]


def evaluate(run: Run) -> Run:
    """A made run with its snapshots measured, and all of it taken through ``cai evaluate``."""
    before, labels = answers(), [c.label for c in CANDIDATES]
    late = [answer(p, name, NO, 1.0) for name in (*SNAPSHOTS, HOSTILE) for p in (*RED, *BENIGN)]
    write_evaluation(run.folder, [*before, *late])
    metrics = [
        *[
            Metric(f"elo.{axis}", m, 40.0 * n, 40.0 * n - 60, None, 30, 12)
            for axis in AXES
            for n, m in enumerate(labels)
        ],
        *[Metric(f"hhh_accuracy.{way}", m, 0.7, 0.6, 0.8, 438, 90) for way in "abcdef" for m in labels],
        Metric("evasive_rate", "sl-cai", None, None, None, 0),
        Metric(HOSTILE, HOSTILE, 0.5, 0.25, 0.75, 4),
    ]
    folder = run.folder / "evaluation"
    medians = [
        MedianAnswer(f"{p.id}.{m}", m, HOSTILE, p, f"{p.id}.0.{m}", HOSTILE, 0.5, 17)
        for p in RED
        for m in labels
    ]
    write_rows(folder / "answers/medians.jsonl", medians)
    (folder / "metrics.json").write_text(json.dumps([asdict(m) for m in metrics]))
    (folder / "models.json").write_text(json.dumps([asdict(c) for c in CANDIDATES]))
    finish(folder, "answers")
    return run


@pytest.fixture
def empty_run(tmp_path: Path) -> Run:
    return begin(tmp_path / "run")


@pytest.fixture
def run(empty_run: Run) -> Run:
    """A finished run."""
    return make(empty_run)


@pytest.fixture
def evaluated(run: Run) -> Run:
    return evaluate(run)
