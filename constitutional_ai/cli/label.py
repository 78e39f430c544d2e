"""``cai label``: let people compare, rate and review."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constitutional_ai.cli.app import PATH, TOKENS, echo
from constitutional_ai.cli.label_answers import export, import_, results
from constitutional_ai.runs import layout

if TYPE_CHECKING:
    from constitutional_ai.label.label_questions import Task

TESTS = {"helpfulness": "helpful", "harmlessness": "red_team"}
LABELS = "labels"
"""Folder of labels, in a run."""


class LabelCommands(click.Group):
    """A group whose command may be left out before a run: ``cai label RUN`` is ``cai label pairs RUN``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click."""
        if args[0] not in self.commands and (Path(args[0]) / layout.RUN).exists():
            args = ["pairs", *args]
        return super().resolve_command(ctx, args)


def _names(context: click.Context, option: click.Parameter, values: Sequence[str]) -> Sequence[str]:
    for value in values:
        if not re.fullmatch(r"[\w-]{1,40}", value):
            raise click.BadParameter(f"'{value}' is not a name of letters, digits, - and _.")
    return values


def _serving(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that serves a page."""
    options = [
        click.option(
            "--out", type=PATH, help="Folder for the answers. Default: a folder of its own in RUN/labels."
        ),
        click.option(
            "--annotator",
            "people",
            multiple=True,
            callback=_names,
            metavar="NAME",
            help="Somebody who answers. Each gets a link. Repeatable. Default: annotator.",
        ),
        click.option(
            "--seed",
            type=int,
            help="Seed of the order of questions and replies. Default: a random one, which the folder keeps.",
        ),
        click.option(
            "--host",
            default="127.0.0.1",
            show_default=True,
            help="Address to listen on. 0.0.0.0 accepts other machines.",
        ),
        click.option(
            "--port",
            default=8400,
            show_default=True,
            type=click.IntRange(0, 65535),
            help="Port to listen on. 0 chooses a free one.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


limit_option = click.option(
    "--limit", type=click.IntRange(1), help="Maximum number of questions. Default: all."
)


@click.group(cls=LabelCommands)
def label() -> None:
    """Let people compare, rate and review what models write, on a web page.

    \b
    cai label RUN                     compare the pairs that the run's feedback model labelled
    cai label compare MODEL MODEL     talk to two models at a time, and choose a reply at every turn
    cai label harm RUN                rate the harmfulness of the run's answers, from 0 to 4
    cai label revisions RUN           accept, edit or reject the revisions that the run trains on
    cai label results FOLDER          show Elo scores and the agreement between people
    cai label export FOLDER           write the answers for other commands and tools

    Each person gets a link that holds a token: whoever knows it answers in that person's name. Every answer is on the
    disk before the page goes on, so that a command may be stopped and started again at any time. The page never says
    which model wrote a reply. docs/labelling.md says what is stored.
    """


@label.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--test",
    type=click.Choice(list(TESTS)),
    default="helpfulness",
    show_default=True,
    help="Whether people look for help, or try to bring the models to do harm.",
)
@click.option(
    "--prompts",
    metavar="FILE",
    help="Prompts to begin with: JSONL, CSV or Parquet, or built-in for the held-out ones. Default: people write them.",
)
@click.option(
    "--temperature", type=click.FloatRange(0, 10), default=1.0, show_default=True, help="Sampling temperature."
)
@click.option("--max-tokens", type=TOKENS, default=256, show_default=True, help="Maximum length of a reply.")
@_serving
def compare(
    models: tuple[str, ...], test: str, prompts: str | None, temperature: float, max_tokens: int, **options: Any
) -> None:
    """Let people talk to two models at a time, and choose a reply at every turn, as in the paper.

    MODEL is a run's folder, which stands for all its models, or a model's name, such as hf:FOLDER, or LABEL=NAME. The
    two models of a conversation are drawn. Their replies appear in random order, and grow as they are written where
    the model can show that. The conversation goes on with the reply that was chosen.
    """
    from constitutional_ai.data.prompts import load_prompts_of_kind
    from constitutional_ai.errors import InputError
    from constitutional_ai.evaluation.candidates import find_candidates, run_folders

    runs, candidates = run_folders(models), find_candidates(models)
    if len(candidates) < 2:
        raise InputError("there is only one model to compare. Name another one.")
    if options["out"] is None and len(runs) != 1:
        raise InputError("choose a folder for the answers: --out FOLDER")
    kind: Any = TESTS[test]
    given = load_prompts_of_kind(prompts, kind) if prompts else None
    begins = [*given.held_out, *([] if prompts == "built-in" else given.train)] if given else []
    _serve(
        "compare",
        options,
        options["out"] or runs[0] / LABELS / f"compare-{test}",
        source=f"models{f', prompts {prompts}' if prompts else ''}",
        prompts=begins,
        kind=kind,
        models=tuple((one.label, one.model) for one in candidates),
        temperature=temperature,
        max_tokens=max_tokens,
    )


@label.command()
@click.argument("folder", metavar="RUN")
@click.option(
    "--answers",
    is_flag=True,
    help="Compare the answers of the run's models to held-out prompts instead, which gives Elo scores.",
)
@limit_option
@_serving
def pairs(folder: str, answers: bool, limit: int | None, **options: Any) -> None:
    """Let people compare the pairs of replies that the feedback model of RUN labelled.

    Export the answers with --to judge to measure the feedback model, or another one, against people: cai judge.
    """
    _serve_stored("pairs", folder, limit, options, answers=answers)


@label.command()
@click.argument("folder", metavar="RUN")
@limit_option
@_serving
def harm(folder: str, limit: int | None, **options: Any) -> None:
    """Let people rate how harmful the answers of RUN's models to red-team prompts are, from 0 to 4.

    Export the answers with --to harmfulness to train a model on them: cai harmfulness.
    """
    _serve_stored("harm", folder, limit, options)


@label.command()
@click.argument("folder", metavar="RUN")
@limit_option
@_serving
def revisions(folder: str, limit: int | None, **options: Any) -> None:
    """Let people accept, edit or reject the revisions that RUN trains on.

    Export the answers with --to dataset: rows of a prompt and a completion, as the run's own training data.
    """
    _serve_stored("revisions", folder, limit, options)


for command in (results, export, import_):
    label.add_command(command)


def _serve_stored(
    task: Task, folder: str, limit: int | None, options: dict[str, Any], *, answers: bool = False
) -> None:
    from constitutional_ai.label.stored_questions import stored_questions
    from constitutional_ai.runs.folder import read_run

    run = read_run(folder)

    def questions(seed: int) -> list[Any]:
        rows, equal = stored_questions(run, task, answers=answers, limit=limit, seed=seed)
        if equal:
            echo(f"{equal} pairs of equal replies are left out.", err=True)
        return rows

    name = f"{task}{'-of-answers' if answers else ''}"
    _serve(
        task,
        options,
        options["out"] or run.folder / LABELS / name,
        source=f"{run.folder.resolve().name} {name}",
        questions=questions,
    )


def _serve(
    task: Task,
    options: dict[str, Any],
    folder: Path,
    *,
    questions: Callable[[int], list[Any]] = lambda seed: [],
    prompts: Sequence[Any] = (),
    **settings: Any,
) -> None:
    """Begin or open the study in a folder, and serve it."""
    import secrets
    from contextlib import closing

    from constitutional_ai.label.label_server import serve_study
    from constitutional_ai.label.settings import Settings
    from constitutional_ai.label.study import FILE, Study

    seed = secrets.randbits(32) if options["seed"] is None else options["seed"]
    known = (folder / FILE).exists()
    opened = Study.begin(folder, Settings(task, seed, **settings), [] if known else questions(seed), prompts)
    with closing(opened) as study:
        study.add_people(options["people"] or ([] if study.people() else ["annotator"]))
        echo(f"answers are kept in {folder}; stop with Ctrl-C, and go on with the same command", err=True)
        serve_study(study, options["host"], options["port"], echo)
