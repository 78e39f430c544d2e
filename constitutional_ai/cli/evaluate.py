"""``cai evaluate``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from constitutional_ai.cli.app import quiet_libraries

PARTS = ("answers", "hhh", "harm", "matches", "harmfulness", "revisions")
A_PATH = click.Path(path_type=Path)


def _part_or_step(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.partition("/")[0] not in PARTS:
        raise click.BadParameter(f"'{value}' is no part. Parts: {', '.join(PARTS)}.")
    return value


def _named_folders(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """NAME=FOLDER, as often as it is given. A name becomes a folder's, so it is a plain word."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not (equals and folder and re.fullmatch(r"\w[\w.-]*", name)):
            raise click.BadParameter(f"'{value}' is not NAME=FOLDER, with a name such as harmless.")
        if name in found:
            raise click.BadParameter(f"two preference models are called '{name}'.")
        found[name] = folder
    return found


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--suite", type=click.Choice(["paper"]), default="paper", help="paper: all parts, as without it.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part; repeatable.")
@click.option("--out", type=A_PATH, help="Folder to write to; of a single run RUN/evaluation, unless said.")
@click.option("--prompts", type=A_PATH, help="Prompts, as JSONL: all are asked. Else our own held-out ones.")
@click.option("--limit", type=click.IntRange(1), help="Prompts of each kind, and questions of each file.")
@click.option("--paper", type=A_PATH, help="A copy of the paper's repository, for its evaluation files.")
@click.option("--samples", type=click.IntRange(1), default=1, show_default=True, help="Answers to each prompt.")
@click.option("--temperature", type=click.FloatRange(0, 10), default=1.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(1), default=128, show_default=True, help="Of an answer.")
@click.option(
    "--pm",
    "pms",
    multiple=True,
    callback=_named_folders,
    metavar="NAME=FOLDER",
    help="A preference model, or a run that has one; repeatable. None that RL learned from.",
)
@click.option("--harm-model", type=A_PATH, help="Folder of a model of absolute harmfulness.")
@click.option("--judge", help="A model that compares answers; of a run its models.feedback, unless said.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="How it is asked: method=votes.")
@click.option("--turns", type=click.IntRange(1), default=1, show_default=True, help="Human turns of a match.")
@click.option("--human", metavar="MODEL", help="Who writes the human turns that a prompt lacks.")
@click.option("--anchor", metavar="LABEL", help="Whose Elo is 0; the first SL-CAI, or the first, unless said.")
@click.option("--ties", type=click.Choice(["discarded", "half"]), default="discarded", help="Half a win each.")
@click.option("--seed", default=0, show_default=True)
@click.option("--redo", callback=_part_or_step, metavar="PART", help="Make this part anew.")
def evaluate(
    models: tuple[str, ...],
    suite: str,
    parts: tuple[str, ...],
    out: Path | None,
    prompts: Path | None,
    limit: int | None,
    paper: Path | None,
    samples: int,
    temperature: float,
    max_tokens: int,
    pms: dict[str, str],
    harm_model: Path | None,
    judge: str | None,
    changes: tuple[str, ...],
    turns: int,
    human: str | None,
    anchor: str | None,
    ties: Literal["discarded", "half"],
    seed: int,
    redo: str | None,
) -> None:
    """Measure MODELs as the paper does, or go on where it was killed.

    A MODEL is a run's folder, which stands for all its models and snapshots, or a model's name, such as hf:FOLDER, also
    as LABEL=NAME.

    \b
    answers      to red-team and harmless prompts: who objects, evades, refuses, repeats itself
    hhh          which answer is more helpful, honest and harmless?
    harm         was an assistant harmful, and how?
    matches      a judge, or people, choose between two models' answers; Elo
    harmfulness  how harmful on a scale, by --harm-model
    revisions    what critiques and revisions gain, by --pm
    """
    from rich.console import Console

    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.errors import InputError
    from constitutional_ai.evaluation import parts as measuring
    from constitutional_ai.evaluation.candidates import choose_anchor, find_candidates, run_folders
    from constitutional_ai.evaluation.suite import Suite, evaluation_prompts, judge_settings, open_evaluation
    from constitutional_ai.models.load import check_name
    from constitutional_ai.serve.score_file import preference_model_folder

    quiet_libraries()
    console, runs, candidates = Console(highlight=False), run_folders(models), find_candidates(models)
    if out is None and len(runs) != 1:
        raise InputError("name a folder to write to: --out FOLDER")
    if human:
        check_name(human)
    if paper and not paper.is_dir():
        raise InputError(f"no folder '{paper}' to look for the paper's evaluation files in.")
    asked, feedback = judge_settings(runs, judge, changes)
    all_prompts = evaluation_prompts(prompts, limit, seed)
    preference_models = {name: preference_model_folder(where) for name, where in pms.items()}
    anchored = choose_anchor(candidates, anchor)
    folder = out or runs[0] / "evaluation"
    # Only now: --redo forgets nothing where something above is wrong.
    with Bars(console) as bars, open_evaluation(folder, bars, redo) as run:
        metrics = measuring.evaluate(
            Suite(
                run=run,
                candidates=tuple(candidates),
                prompts=all_prompts,
                judge=asked,
                feedback=feedback,
                preference_models=preference_models,
                harmfulness_model=harm_model,
                paper=paper,
                samples=samples,
                temperature=temperature,
                max_tokens=max_tokens,
                turns=turns,
                human=human,
                anchor=anchored,
                ties=ties,
                seed=seed,
                concurrency=256,
                max_failures=20,
                say=bars.say,
                limit=limit,
            ),
            parts or PARTS,
        )
    console.print(measuring.table(metrics))
    console.print(f"written to {folder}", markup=False)
