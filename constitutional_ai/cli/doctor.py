"""``cai doctor``."""

from __future__ import annotations

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("model")
@click.option("--reference", metavar="MODEL", help="The same weights, here, to compare a server's scores with.")
@click.pass_context
def doctor(ctx: click.Context, model: str, reference: str | None) -> None:
    """Say whether MODEL does what the method asks of it, and how fast; exits with 1 when it does not.

    It answers; a seed fixes its answer; its scores are log-probabilities of whole continuations, and right: compared
    with a plain float32 pass over the same weights, where these are at hand.
    """
    from rich.console import Console

    from constitutional_ai.models.doctor import examine, table

    quiet_libraries()
    checks = examine(model, reference)
    Console(highlight=False, markup=False).print(table(model, checks))
    ctx.exit(1 if any(check.outcome == "no" for check in checks) else 0)
