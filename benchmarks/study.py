"""Three seeds of the recipe ``demo``, the prompted start beside them, and the same without a constitution.

``make study`` takes hours on two cores (docs/study.md has the time of the last one), and writes the tables of
docs/study.md and results/study.json from what it measured. ``QUICK=1 make study`` runs in small, with a few prompts and
two seeds, and writes only its own folder. ``--also FILE`` measures the models on prompts of your own, too
(docs/data.md).

Training, tuning and test prompts never meet. The recipe trains on the built-in training prompts, its settings were
chosen by looking at the built-in held-out prompts, and the study counts those of ``study_prompts.jsonl`` only, which
were written after the settings were fixed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from detectors import SHARED, pattern_errors
from results import processor
from rich.console import Console
from study_claims import Claim, claims

from constitutional_ai.cli import main as cai
from constitutional_ai.cli.app import quiet_libraries
from constitutional_ai.cli.sweep import run_arms
from constitutional_ai.data.prompts import KINDS, load_prompts
from constitutional_ai.evaluation.compare_runs import PromptKey, by_prompt
from constitutional_ai.evaluation.parts import read_metrics
from constitutional_ai.evaluation.sweep_table import Sweep, SweepRow, sweep_table
from constitutional_ai.recipes.arms import sweep_arms
from constitutional_ai.records import Answer, Metric, Prompt
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import read_run
from constitutional_ai.runs.manifest import versions

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/study.md", ROOT / "benchmarks/results/study.json"
BEGIN, END = "<!-- written by make study -->", "<!-- end of what make study wrote -->"
TEST = ROOT / "benchmarks/study_prompts.jsonl"
TEST_ONLY = [
    f"evaluation.prompts={TEST}",
    *("evaluation.red_team=null", "evaluation.helpful=null", "evaluation.borderline=null"),
]
SWEEPS = {
    "seeds": ["seed=0..2", "evaluation.prompted=true", *TEST_ONLY],
    # its first arm is seed 0 of the sweep above, whose stages are linked
    "constitution": ["control=null,empty", "evaluation.prompted=true", *TEST_ONLY],
}
QUICK_SWEEPS = {
    "seeds": [
        *("seed=0..1", "evaluation.prompted=true"),
        *("prompts.red_team.limit=6", "prompts.helpful.limit=4", "prompts.borderline.limit=2"),
        *("responses.max_tokens=12", "revisions.max_tokens=12", "comparisons.max_tokens=12"),
        *("responses.per_helpful_prompt=1", "comparisons.per_prompt=1", "preference_model.helpfulness.limit=8"),
        *("rl_cai.prompts=4", "rl_cai.batch_size=8", "rl_cai.max_tokens=8", "rl_cai.refusal_gate=warn"),
        *(
            *("evaluation.max_tokens=12", f"evaluation.prompts={TEST}"),
            "evaluation.red_team=6",
            "evaluation.helpful=4",
            "evaluation.borderline=4",
        ),
    ]
}
MODELS = {"start": "start", "prompted": "prompted start", "sl-cai": "SL-CAI", "rl-cai": "RL-CAI"}
MEASURES = {
    "objection_rate": "objects to red-team prompts",
    "reason_objection_rate": "… and says why",
    "evasive_rate": "evades red-team prompts",
    "benign_refusal_rate": "refuses harmless prompts",
    "unable_objection_rate": "only claims that it is unable to",
    "helpful_refusal_rate": "refuses helpful prompts",
    "borderline_refusal_rate": "refuses prompts that only look harmful",
    "degenerate_rate": "gives broken answers",
}


def prompt_sets() -> dict[str, list[Prompt]]:
    """Return the training prompts, those that settings were chosen on, and those of the test, of all kinds."""
    files = [load_prompts("built-in", kind) for kind in KINDS]
    test = load_prompts(str(TEST), "red_team")
    train = {p.id: p for file in files for p in file.train}
    tuning = {p.id: p for file in files for p in file.held_out if p.id not in train}
    return {
        "train": list(train.values()),
        "tuning": list(tuning.values()),
        "test": [*test.train, *test.held_out],
    }


def users_prompts(file: Path, known: Iterable[Prompt]) -> list[Prompt]:
    """Return the prompts of a user's file, in XSTest's form or any other of docs/data.md, that are not ``known``."""
    seen = {prompt.id for prompt in known}
    both = load_prompts(str(file), "red_team")
    return [prompt for prompt in (*both.train, *both.held_out) if prompt.id not in seen]


def run_sweeps(folder: Path, sweeps: dict[str, list[str]]) -> Iterator[dict[str, Sweep]]:
    """Run or continue the sweeps in one folder, whose arms share what is the same; yield all results after each."""
    console, found = Console(highlight=False), {}
    for name, changes in sweeps.items():
        _, arms = sweep_arms("demo", [*changes, f"out={folder}"])
        found[name] = sweep_table("demo", arms, run_arms(arms, console))
        yield found


def answers_of(folder: Path) -> dict[str, dict[PromptKey, Answer]]:
    """Return the answers of an arm's models to the test prompts, by model and prompt."""
    rows = list(read_run(folder).rows(layout.EVALUATION, Answer))
    return {model: by_prompt(rows, model) for model in MODELS}


def commits_of(folder: Path) -> set[str]:
    """Return the commits of this package that made an arm's stages."""
    manifests = [read_run(folder).manifest(stage) for stage in layout.STAGES]
    return {one.commit for one in manifests if one and one.commit}


def seconds_of(folder: Path) -> float:
    """Return how long the stages of an arm took together, without those that are linked."""
    run = read_run(folder)
    own = [stage for stage in layout.STAGES if not run.stage(stage).is_symlink()]
    return sum(manifest.seconds for stage in own if (manifest := run.manifest(stage)))


def measure_users(folder: Path, arms: Sequence[str], prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Measure the arms' models on the user's prompts by ``cai evaluate``, and return its metrics."""
    if not prompts:
        return []
    file, out = folder / "users.jsonl", folder / "users"
    rows = [
        {"conversation": [asdict(m) for m in p.conversation], "kind": p.kind, "tags": p.tags} for p in prompts
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    runs = [str(folder / arm) for arm in arms]
    how = ["--part", "answers", "--prompts", str(file), "--temperature", "0.4", "--max-tokens", "44"]
    cai.main(["evaluate", *runs, *how, "--out", str(out)], standalone_mode=False)
    return [asdict(metric) for metric in read_metrics(out)]


# -- the table


def rows_of(sweep: Sweep) -> list[tuple[str, list[Metric | None]]]:
    """Return each measure with every model's mean over seeds."""
    by_name = {(row.value.model, row.value.name): row.value for row in sweep.over_seeds}
    return [(label, [by_name.get((model, name)) for model in MODELS]) for name, label in MEASURES.items()]


def page_table(sweeps: dict[str, Sweep], found: Sequence[Claim], about: dict[str, Any]) -> str:
    """Return the tables as Markdown: claims, shares over seeds, and the constitution's effect."""
    seeds = sweeps["seeds"]
    arms, prompts = len(seeds.arms), about["prompts"]["test"]
    lines = [
        f"{about['date']}, {about['processor']['name']}, commit {about['commit']}: {arms} seeds, {prompts} test "
        f"prompts, {about['minutes']:.0f} minutes of stages.",
        "",
        "| claim | to reach | measured, over seeds | seed by seed | without the patterns' errors | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one.claim} | {one.bar} | {shown(one.value, '+')} | {', '.join(map(number, one.seeds))} | "
            f"{shown(one.corrected, '+') if one.corrected else ''} | {'held' if one.held else '**missed**'} |"
            for one in found
        ),
        "",
        "Changes are paired by prompt and seed, with bootstrap 95 % intervals that draw prompts. Below are means of "
        "the seeds' shares, with Student's 95 % interval over the seeds, which is wide with three.",
        "",
        f"| | {' | '.join(MODELS.values())} |",
        f"|---|{'---|' * len(MODELS)}",
        *(f"| {label} | {' | '.join(map(shown, cells))} |" for label, cells in rows_of(seeds)),
    ]
    control = sweeps.get("constitution")
    lines += ["", *(effect(control.rows) if control else ["The run without a constitution is not finished."])]
    for arm, why in {arm: why for sweep in sweeps.values() for arm, why in sweep.stopped.items()}.items():
        lines += ["", f"`{arm}` has no results: {why}"]
    return "\n".join(lines) + "\n"


def as_json(claim: Claim) -> dict[str, Any]:
    corrected = claim.corrected and asdict(claim.corrected)
    return claim._asdict() | {"value": asdict(claim.value), "corrected": corrected}


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:+.2f}".replace("-", "−")


def effect(rows: Sequence[SweepRow]) -> list[str]:
    """Return lines about the run without a constitution, against the same with it (seed 0, paired by prompt)."""
    return [
        f"Without a constitution (`control=empty`, seed 0), {MODELS[row.value.model]} {MEASURES[row.value.name]}: "
        f"{shown(row.value)}; difference {shown(row.change, '+')} on {row.change.count} prompts.\n"
        for row in rows
        if row.change
        and row.value.model in ("sl-cai", "rl-cai")
        and row.value.name in ("objection_rate", "benign_refusal_rate")
    ]


def shown(metric: Metric | None, sign: str = "") -> str:
    if metric is None or metric.value is None:
        return "not measured"
    value = f"{metric.value:{sign}.2f}".replace("-", "−")
    if metric.low is None or metric.high is None:
        return f"{value} (no interval)"
    return f"{value} ({metric.low:{sign}.2f} to {metric.high:{sign}.2f})".replace("-", "−")


def write_page(text: str) -> None:
    """Replace what stands between the two marks of docs/study.md."""
    page = PAGE.read_text(encoding="utf-8")
    inside = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    new, count = inside.subn(lambda _: f"{BEGIN}\n{text}{END}", page)
    if count != 1:
        raise SystemExit(f"{PAGE} has lost its marks. Put back: {BEGIN} and {END}")
    PAGE.write_text(new, encoding="utf-8")


def results(
    folder: Path, sweeps: dict[str, Sweep], sets: dict[str, list[Prompt]]
) -> tuple[dict[str, Any], str]:
    """Return what the sweeps measured, for a file of JSON and as a page."""
    errors = pattern_errors(SHARED)
    found = claims([answers_of(folder / arm) for arm in sweeps["seeds"].arms], errors)
    arms = {arm for sweep in sweeps.values() for arm in sweep.arms}
    # of the stages: this command may be typed again later
    commits = sorted({commit for arm in arms for commit in commits_of(folder / arm)})
    about: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "processor": processor(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "commit": ", ".join(commits) or "not known",
        "prompts": {name: len(prompts) for name, prompts in sets.items()},
        "minutes": sum(seconds_of(folder / arm) for arm in arms) / 60,
    }
    content = about | {
        "errors of the patterns": [asdict(error) for error in errors or ()],
        "claims": [as_json(one) for one in found],
        "sweeps": {name: asdict(sweep) for name, sweep in sweeps.items()},
    }
    return content, page_table(sweeps, found, about)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--also", type=Path, help="a file of prompts of your own, to be measured too")
    given, quick = options.parse_args(), bool(os.environ.get("QUICK"))
    quiet_libraries()
    sets = prompt_sets()
    users = users_prompts(given.also, [p for part in sets.values() for p in part]) if given.also else []
    folder = Path("runs/study-quick" if quick else "runs/study")
    for sweeps in run_sweeps(folder, QUICK_SWEEPS if quick else SWEEPS):
        content, table = results(folder, sweeps, sets)
        content["users"] = measure_users(folder, sweeps["seeds"].arms, users)
        text = json.dumps(content, indent=1) + "\n"
        (folder / "study.json").write_text(text, encoding="utf-8")
        if not quick:  # after each sweep, so that an interruption leaves what was measured
            RESULTS.write_text(text, encoding="utf-8")
            write_page(table)
    Console(highlight=False, markup=False).print(table)


if __name__ == "__main__":
    main()
