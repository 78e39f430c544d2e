"""``cai evaluate``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from constitutional_ai.cli import completion
from constitutional_ai.cli.app import (
    FOLDER,
    PATH,
    TOKENS,
    json_option,
    print_json,
    seed_option,
    settings_option,
    terminal,
)
from constitutional_ai.runs import layout

PARTS = ("answers", "hhh", "harm", "matches", "harmfulness", "revisions", "adherence")
ONLY_BY_NAME = ("adherence",)
"""Parts that are measured only if they are named: one question for each prompt, principle and model is expensive."""


def _part_or_step(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.partition("/")[0] not in PARTS:
        raise click.BadParameter(f"'{value}' is not a part. Parts: {', '.join(PARTS)}.")
    return value


def _named_folders(context: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Parse NAME=FOLDER options. A name becomes part of a path, so it must be a plain word."""
    folders: dict[str, str] = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not (equals and folder and re.fullmatch(r"\w[\w.-]*", name)):
            raise click.BadParameter(f"'{value}' is not NAME=FOLDER, with a name such as harmless.")
        if name in folders:
            raise click.BadParameter(f"two preference models are called '{name}'. Rename one.")
        folders[name] = folder
    return folders


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=completion.runs)
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(PARTS), help="Measure only this part. Repeatable."
)
@click.option("--out", type=PATH, help="Folder for the results. Default for a single run: RUN/evaluation.")
@click.option(
    "--prompts",
    type=PATH,
    help="File of prompts: JSONL, CSV or Parquet. Default: the built-in held-out prompts.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Maximum number of prompts of each kind, and of questions of each file.",
)
@click.option("--paper", type=FOLDER, help="A copy of the paper's repository, with its evaluation files.")
@click.option(
    "--samples", type=click.IntRange(1, 1000), default=1, show_default=True, help="Answers per prompt."
)
@click.option(
    "--temperature", type=click.FloatRange(0, 10), default=1.0, show_default=True, help="Sampling temperature."
)
@click.option("--max-tokens", type=TOKENS, default=128, show_default=True, help="Maximum length of an answer.")
@click.option(
    "--pm",
    "pms",
    multiple=True,
    callback=_named_folders,
    metavar="NAME=FOLDER",
    help="A preference model, or a run that has one, but not the one that gave rewards in RL. Repeatable.",
)
@click.option(
    "--harm-model", "harmfulness_model", type=PATH, help="Folder of a model trained by cai harmfulness."
)
@click.option("--judge", help="The model that compares answers. Default for runs: their models.feedback.")
@settings_option(help="A setting of the judge, for example method=votes. Repeatable.")
@click.option(
    "--constitution",
    metavar="FILE",
    help="The principles of part adherence. Default: those of the first run, else the built-in ones.",
)
@click.option(
    "--turns", type=click.IntRange(1, 100), default=1, show_default=True, help="User turns of a match."
)
@click.option("--human", metavar="MODEL", help="The model that writes the user turns after the prompt.")
@click.option(
    "--anchor",
    metavar="LABEL",
    help="The model whose Elo is 0. Default: the first SL-CAI, otherwise the first model.",
)
@seed_option
@click.option("--redo", callback=_part_or_step, metavar="PART", help="Repeat this part.")
@json_option
def evaluate(
    models: tuple[str, ...],
    parts: tuple[str, ...],
    out: Path | None,
    prompts: Path | None,
    pms: dict[str, str],
    judge: str | None,
    changes: tuple[str, ...],
    constitution: str | None,
    anchor: str | None,
    redo: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure MODELs as in the paper, or continue an evaluation that was interrupted.

    MODEL is a run's folder, which stands for all its models and snapshots, or a model's name, such as hf:FOLDER, or
    LABEL=NAME.

    \b
    answers      objections, evasions, refusals and repetition on red-team and harmless prompts
    hhh          accuracy in choosing the more helpful, honest and harmless answer
    harm         accuracy in identifying and classifying harm
    matches      Elo scores from a judge's choices between two models' answers
    harmfulness  absolute harmfulness, from 0 to 4 (needs --harm-model)
    revisions    scores of critiques and revisions (needs --pm)
    adherence    by principle, how often the judge prefers a model's answer to the
                 start's; only if named by --part
    """
    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.errors import InputError
    from constitutional_ai.evaluation import parts as measuring
    from constitutional_ai.evaluation.candidates import choose_anchor, find_candidates, run_folders
    from constitutional_ai.evaluation.suite import (
        Suite,
        evaluation_prompts,
        judge_settings,
        open_evaluation,
        principles_of_judge,
    )
    from constitutional_ai.models.load import check_name
    from constitutional_ai.serve.score_file import preference_model_folder

    console, runs, candidates = terminal(err=as_json), run_folders(models), find_candidates(models)
    if out is None and len(runs) != 1:
        raise InputError("choose a folder for the results: --out FOLDER")
    if options["human"]:
        check_name(options["human"])
    elif options["turns"] > 1:
        raise InputError("--turns needs a model that writes the user turns after the prompt: --human MODEL")
    judge_name, feedback = judge_settings(runs, judge, changes)
    principles, few_shots = principles_of_judge(runs, judge, constitution)
    all_prompts = evaluation_prompts(prompts, options["limit"], options["seed"])
    preference_models = {name: preference_model_folder(where) for name, where in pms.items()}
    anchored = choose_anchor(candidates, anchor)
    folder = out or runs[0] / layout.SUITE
    # After the checks above, so that a wrong option deletes nothing with --redo.
    with Bars(console) as bars, open_evaluation(folder, bars, redo) as run:
        metrics = measuring.evaluate(
            Suite(
                run=run,
                candidates=tuple(candidates),
                prompts=all_prompts,
                judge=judge_name,
                feedback=feedback,
                constitution=principles,
                few_shots=few_shots,
                preference_models=preference_models,
                anchor=anchored,
                say=bars.say,
                **options,
            ),
            parts or [part for part in PARTS if part not in ONLY_BY_NAME],
        )
    if as_json:
        print_json({"folder": str(folder), "metrics": [asdict(metric) for metric in metrics]})
        return
    console.print(measuring.table(metrics))
    console.print(f"written to {folder}")
