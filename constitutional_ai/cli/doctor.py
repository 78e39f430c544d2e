"""``cai doctor``."""

from __future__ import annotations

import click

from constitutional_ai.cli.app import quiet_libraries


@click.command()
@click.argument("model")
@click.option(
    "--reference", metavar="MODEL", help="The same weights on this machine, to compare a server's scores with."
)
@click.pass_context
def doctor(ctx: click.Context, model: str, reference: str | None) -> None:
    """Check that MODEL supports the method, and measure its speed. The exit code is 1 if it does not.

    It must answer, give the same answer for the same seed, and give the log-probabilities of continuations. These are
    compared with a float32 forward pass over the same weights, if they are available.
    """
    from rich.console import Console

    from constitutional_ai.models.doctor import examine, table

    quiet_libraries()
    checks = examine(model, reference)
    Console(highlight=False, markup=False).print(table(model, checks))
    ctx.exit(1 if any(check.outcome == "no" for check in checks) else 0)
