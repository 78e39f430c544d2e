"""The command line: parse, call, print. Heavy imports wait inside the commands, so that --help is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from cai.errors import CaiError, did_you_mean

STAGES = (
    "00-prompts",
    "01-responses",
    "02-revisions",
    "03-sl-cai-model",
    "04-comparisons",
    "05-preference-labels",
    "06-preference-model",
    "07-rl-cai-model",
    "08-evaluation",
)


class Commands(click.Group):
    """Prints what the user can mend as one sentence; everything else keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CaiError as error:
            click.echo(f"cai: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("\ncai: interrupted. Nothing is lost: type the same command to go on.", err=True)
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            raise click.UsageError(
                f"no command '{args[0]}'.{did_you_mean(args[0], self.list_commands(ctx))}", ctx
            ) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="constitutional-ai")
def main() -> None:
    """Constitutional AI: from a constitution to an evaluated model and a report.

    \b
    cai run demo            the whole method on this machine, in minutes
    cai report runs/demo    its report again
    cai chat runs/demo      ask the three models the same thing
    """


@main.command()
@click.argument("recipe")
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--until", type=click.Choice(STAGES), metavar="STAGE", help="Stop after this stage.")
@click.option(
    "--redo", type=click.Choice(STAGES), metavar="STAGE", help="Make this stage and all later ones anew."
)
def run(recipe: str, changes: tuple[str, ...], until: str | None, redo: str | None) -> None:
    """Run RECIPE, or go on with it where it was killed.

    RECIPE is a YAML file, or one of ours by name (demo, paper). Any key of the recipe can be changed here, for
    example revisions.rounds=2 or out=runs/mine.

    \b
    STAGE is one of 00-prompts, 01-responses, 02-revisions, 03-sl-cai-model, 04-comparisons,
    05-preference-labels, 06-preference-model, 07-rl-cai-model, 08-evaluation.
    00-prompts is made only where the recipe asks to generate prompts.
    """
    from rich.console import Console

    from cai.pipeline import run_pipeline
    from cai.progress import Bars
    from cai.recipe_file import load_recipe
    from cai.report.page import write_report

    quiet_libraries()
    console = Console(highlight=False)
    asked = load_recipe(recipe, changes)
    with Bars(console) as bars:
        made = run_pipeline(asked, progress=bars, say=bars.say, until=until, redo=redo)
    if until is None or until == STAGES[-1]:
        console.print(f"report: {write_report(made)}")
    else:
        done = "is complete" if made.manifest(until) else "is no part of what this recipe asks for"
        console.print(f"{until} {done} in {made.folder}.")


@main.command()
@click.argument("constitution")
def check(constitution: str) -> None:
    """Check CONSTITUTION and say what it holds.

    It is a YAML file, or one of ours by name.
    """
    from cai.constitution import load_constitution

    loaded = load_constitution(constitution)
    click.echo(f"{loaded.name}, version {loaded.digest}")
    click.echo(f"  {len(loaded.for_revision)} principles to revise under (the paper has 16)")
    click.echo(f"  {len(loaded.for_preference)} principles to compare under (the paper has 16)")
    if not (loaded.for_revision and loaded.for_preference):
        click.echo("  A whole run needs both.")


@main.group(cls=Commands)
def constitution() -> None:
    """Import, lint and compare constitutions."""


@constitution.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The YAML file to write.")
def import_(source: Path, out: Path) -> None:
    """Turn SOURCE into one of our constitutions.

    SOURCE is a copy of the paper's repository, an llm-swarm or NeMo-Aligner constitution, or a text file with one
    preference question a line.
    """
    from cai.constitution import load_constitution
    from cai.constitution_files import import_constitution
    from cai.errors import InputError

    if out.exists():
        raise InputError(f"{out} is already there. Delete it, or name another file with --out.")
    text = import_constitution(source).to_yaml()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    made = load_constitution(out)
    click.echo(f"{out}: {made.name}, version {made.digest}. {made.description}")
    click.echo(
        f"  {len(made.for_revision)} principles to revise under, {len(made.for_preference)} to compare under"
    )
    click.echo(f"See what to mend: cai constitution lint {out}")


@constitution.command()
@click.argument("file")
@click.pass_context
def lint(ctx: click.Context, file: str) -> None:
    """Say what is likely wrong with FILE (or one of ours by name); exits with 1 when something is."""
    from cai.constitution import load_constitution
    from cai.constitution_lint import lint

    loaded = load_constitution(file)
    findings = lint(loaded)
    for finding in findings:
        click.echo(str(finding))
    click.echo(f"{loaded.name}, version {loaded.digest}: {len(findings)} findings")
    ctx.exit(1 if findings else 0)


@constitution.command()
@click.argument("old")
@click.argument("new")
def diff(old: str, new: str) -> None:
    """Say what changed from OLD to NEW, principle by principle."""
    from cai.constitution import load_constitution
    from cai.constitution_lint import diff

    click.echo("\n".join(diff(load_constitution(old), load_constitution(new))))


@main.command()
@click.argument("folder", metavar="RUN")
@click.argument("record", metavar="ID")
@click.option(
    "--scores", is_flag=True, help="Ask the run's models what every round of revision gained, and lost."
)
def show(folder: str, record: str, scores: bool) -> None:
    """Print one prompt's whole life in RUN. ID may be the beginning of any record's id."""
    from rich.console import Console

    from cai.report.life import life_of
    from cai.runs.run import read_run

    run = read_run(folder)
    Console().print(life_of(run, record))
    if scores:
        from cai.report.rounds import rounds_of

        quiet_libraries()
        Console().print(rounds_of(run, record))


@main.command()
@click.argument("folder", metavar="RUN")
def report(folder: str) -> None:
    """Write the report of RUN anew: one HTML file."""
    from cai.report.page import write_report
    from cai.runs.run import read_run

    click.echo(f"report: {write_report(read_run(folder))}")


@main.command()
@click.argument("folders", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file to write the figures to.")
def compare(folders: tuple[str, ...], out: Path | None) -> None:
    """Compare finished runs, each with the first, prompt by prompt.

    Did the constitution do it? Make the run again with control=empty, control=shuffled or control=without:PRINCIPLE
    and another out=, and compare.
    """
    from rich.console import Console

    from cai.comparing import compare_runs, table

    Console(highlight=False).print(table(compare_runs(folders, out)))


@main.command()
@click.argument("folder", metavar="RUN")
@click.option("--temperature", default=0.4, show_default=True, help="0 is greedy.")
@click.option("--max-tokens", default=128, show_default=True)
def chat(folder: str, temperature: float, max_tokens: int) -> None:
    """Ask the three models of RUN the same thing, side by side."""
    from cai.chat import side_by_side
    from cai.models.model import Sampling
    from cai.runs.run import read_run

    quiet_libraries()
    side_by_side(read_run(folder), Sampling(temperature=temperature, max_tokens=max_tokens))


@main.command()
@click.argument("model")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Pairs: JSONL, or .jsonl.gz.")
@click.option("--constitution", "named", default="default", show_default=True, help="A file, or one of ours.")
@click.option(
    "--few-shots", default="built-in", show_default=True, help="As in a recipe; for models in the plain format."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="As in a recipe under feedback: method=votes."
)
@click.option("--limit", type=click.IntRange(1), help="How many pairs to use; all of them unless said.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A JSON file to write the figures to.")
def judge(
    model: str,
    data: Path,
    named: str,
    few_shots: str,
    changes: tuple[str, ...],
    limit: int | None,
    seed: int,
    out: Path | None,
) -> None:
    """Measure MODEL as a judge, on pairs that people judged.

    How often they agree, how sure it is, how often it refuses, and whether order or length sways it. Defaults are the
    paper's.

    A row of the file has chosen and rejected, and prompt, conversation or messages; or two whole dialogues, as in
    hh-rlhf.
    """
    from rich.console import Console

    from cai.judging import judge_model
    from cai.rl_cai.judge_table import table

    quiet_libraries()
    report = judge_model(
        model,
        data,
        constitution=named,
        few_shots=few_shots,
        changes=changes,
        limit=limit,
        seed=seed,
        out=out,
    )
    Console(highlight=False).print(table(report))


@main.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The JSONL file to write.")
def score(model: str, file: Path, out: Path) -> None:
    """Score the conversations in FILE with the preference model MODEL.

    MODEL is a run, or the folder of a saved preference model.

    FILE is JSONL. A row has messages, conversation or text, or a prompt and a completion or response; or it is a record
    of a run's 01-responses or 08-evaluation. Scores are written in the order of FILE, with its line numbers and ids.
    """
    from cai.scoring import score_file

    quiet_libraries()
    made = score_file(model, file, out)
    sd = "" if made.sd is None else f", standard deviation {made.sd:.4g}"
    click.echo(f"{out}: {len(made.scores)} conversations, mean score {made.mean:.4g}{sd}")
    if made.unscored:
        click.echo(f"{made.unscored} rows of {file} could not be scored:", err=True)
        click.echo("".join(f"  {reason}\n" for reason in made.reasons), err=True, nl=False)


@main.command()
@click.argument("model")
@click.option(
    "--port", default=8300, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Others than this machine's are served too then."
)
def serve(model: str, port: int, host: str) -> None:
    """Serve the preference model MODEL over HTTP, for the trainers of others (TRL, OpenRLHF, verl).

    MODEL is a run, or the folder of a saved preference model. There is no key: whoever reaches the port can ask.
    """
    from cai.scoring import serve_model

    quiet_libraries()
    serve_model(model, host, port, click.echo)


def quiet_libraries() -> None:
    """No bars and warnings of others between ours."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


if __name__ == "__main__":
    sys.exit(main())
