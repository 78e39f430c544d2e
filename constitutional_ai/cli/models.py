"""Define the commands about one model: doctor, judge, harmfulness, score and serve."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from constitutional_ai.cli.app import (
    PATH,
    echo,
    json_option,
    print_json,
    refuse_to_overwrite,
    seed_option,
    settings_option,
    terminal,
)

EMBEDDED = "bundled:smollm2-135m"
NAMED = 10
"""Maximum number of rows that cai score names because they could not be scored."""


@click.command()
@click.argument("model", required=False)
@click.option(
    "--reference", metavar="MODEL", help="The same weights on this machine, to compare a server's scores with."
)
@click.option(
    "--engines",
    is_flag=True,
    help="Measure the installed engines on this machine instead. The fastest is used from then on. "
    f"MODEL is then {EMBEDDED} by default.",
)
@click.pass_context
def doctor(ctx: click.Context, model: str | None, reference: str | None, engines: bool) -> None:
    """Check that MODEL supports the method, and measure its speed. The exit code is 1 if it does not.

    It must answer, give the same answer for the same seed, and give the log-probabilities of continuations. These are
    compared with a float32 forward pass over the same weights, if they are available.

    A server must also compare answers in four ways, by scores, letters, decisions and votes. The last line says which
    feedback.method to set. Each check of a server ends after 5 minutes; standard error says which one runs.
    """
    if engines:
        if reference:
            raise click.UsageError("--engines compares no scores: leave out --reference.")
        _measure_engines(model or EMBEDDED)
        ctx.exit(0)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    from constitutional_ai.evaluation.judge.feedback_ways import examine_ways
    from constitutional_ai.models.doctor import examine, table

    def say(doing: str) -> None:
        echo(f"cai doctor {doing} …", err=True)

    checks = examine(model, reference, say)
    ways = [] if checks[-1].name == "answers" else examine_ways(model, say)
    terminal().print(table(model, [*checks, *ways]))
    ctx.exit(1 if any(check.outcome == "no" for check in [*checks, *ways[-1:]]) else 0)


def _measure_engines(name: str) -> None:
    from constitutional_ai.models.load import model_path
    from constitutional_ai.models.local.choose import pick
    from constitutional_ai.models.local.measure_engines import measure_engines, rates_table

    weights, reasons = model_path(name), list[str]()
    rates = measure_engines(name, weights, echo).rates
    picked = pick(None, weights, name=name, say=reasons.append)
    terminal().print(rates_table(rates, picked))
    echo(reasons[0])


@click.command()
@click.argument("model")
@click.option("--data", required=True, type=PATH, help="File of pairs: JSONL, CSV or Parquet.")
@click.option("--constitution", default="default", show_default=True, help="A file, or a built-in one by name.")
@click.option(
    "--few-shots",
    default="built-in",
    show_default=True,
    help="Worked examples for models in the plain format: built-in, none, or a folder with the paper's files.",
)
@settings_option(help="A setting from the recipe's section feedback, for example method=votes.")
@click.option("--limit", type=click.IntRange(1), help="Maximum number of pairs. Default: all.")
@seed_option
@click.option("--out", type=PATH, help="JSON file to write the report to.")
@click.option(
    "--rows", type=PATH, help="JSONL file with a row for each pair, to see which the judge got wrong."
)
@json_option
def judge(model: str, data: Path, as_json: bool, **options: Any) -> None:
    """Measure MODEL as a judge, on pairs that people have judged. The exit code is 1 if it can judge none.

    The report shows how often they agree, how sure the model is, how often it refuses, and whether order or length
    influences it. Defaults are the paper's. Its answers are kept on this machine, so that the same question to a model
    of the same name is not paid for twice.

    Each row of the file has chosen and rejected, and prompt, conversation or messages; or two whole dialogues, as in
    hh-rlhf; or the columns of TRL, H4, OpenAI, PKU-SafeRLHF or ShareGPT (docs/data.md). Ties are left out.
    """
    from constitutional_ai.evaluation.judge.judge import judge_model
    from constitutional_ai.evaluation.judge.judge_report import judge_table

    refuse_to_overwrite(options["out"], options["rows"])
    report = judge_model(model, data, say=partial(echo, err=True), **options)
    if as_json:
        print_json(asdict(report))
    else:
        terminal().print(judge_table(report))


@click.command()
@click.argument("file", type=PATH)
@click.option("--out", required=True, type=PATH, help="Folder for the trained model.")
@click.option("--base", default=EMBEDDED, show_default=True, help="The model to finetune.")
@click.option(
    "--scale",
    type=click.Choice([1, 4]),
    help="Highest possible rating in FILE, if its rows do not state it.",
)
@settings_option(help="A setting of the training, for example epochs=3. Repeatable.")
@seed_option
def harmfulness(file: Path, out: Path, **options: Any) -> None:
    """Train a model that rates the harmfulness of conversations from 0 to 4, on people's ratings in FILE.

    It minimises the squared error on whole conversations, and is tested on held-out prompts. Pass its folder to
    cai evaluate --harm-model. If it is interrupted, run the same command again to continue.

    FILE is JSON, JSONL, CSV or Parquet: hh-rlhf's red-team attempts, PyRIT's scored responses, or rows with
    messages, or prompt and response, and a rating or harm.
    """
    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.evaluation.harmfulness.fit_regressor import make_regressor
    from constitutional_ai.evaluation.parts import table

    console = terminal()
    with Bars(console) as bars:
        regressor = make_regressor(file, out, progress=bars, say=bars.say, **options)
    console.print(table(regressor.held_out))
    console.print(f"trained on {regressor.trained_on} conversations; written to {out}")


@click.command()
@click.argument("model")
@click.argument("file", type=PATH)
@click.option("--out", required=True, type=PATH, help="The JSONL file for the scores; - is standard output.")
def score(model: str, file: Path, out: Path) -> None:
    """Score the conversations in FILE with the preference model MODEL.

    MODEL is a run or the folder of a saved preference model.

    FILE is JSONL, or - for standard input. A row has messages, conversation or text, or a prompt and a completion or
    response; or it is a record of a run's 01-responses or 08-evaluation. Scores are in the order of FILE, with its line
    numbers and ids.
    """
    from statistics import fmean, stdev

    from constitutional_ai.serve.score_file import score_file

    scores, reasons = score_file(model, file, out)
    sd = f", standard deviation {stdev(scores):.4g}" if len(scores) > 1 else ""
    echo(f"{out}: {len(scores)} conversations, mean score {fmean(scores):.4g}{sd}", err=str(out) == "-")
    if reasons:
        echo(f"{len(reasons)} rows of {file} could not be scored:", err=True)
        for reason in reasons[:NAMED]:
            echo(f"  {reason}", err=True)


@click.command()
@click.argument("model")
@click.option(
    "--port",
    default=8300,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on. 0 chooses a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0 accepts other machines.",
)
@click.option(
    "--token/--no-token",
    default=True,
    show_default=True,
    help="Whether the address holds a token: CAI_SERVE_TOKEN, or a random one. "
    "Without one, all who reach the port are served.",
)
def serve(model: str, port: int, host: str, token: bool) -> None:
    """Serve the preference model MODEL over HTTP, for other trainers (TRL, OpenRLHF, verl).

    MODEL is a run or the folder of a saved preference model. Give the address that is printed to the trainer: whoever
    knows it can use the server.
    """
    from constitutional_ai.serve import reward_server
    from constitutional_ai.serve.score_file import preference_model_folder

    folder = preference_model_folder(model)
    with suppress(KeyboardInterrupt):  # the end of a server
        reward_server.serve(folder, host, port, echo, with_token=token)
