"""Define what all commands share: errors as one sentence, common options, and quiet libraries."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constitutional_ai.errors import CaiError

if TYPE_CHECKING:
    from rich.console import Console

EXTRAS = {
    "inspect_ai": "inspect",
    "pyarrow": "local",
    "starlette": "serve",
    "torch": "local",
    "uvicorn": "serve",
}
"""The extra that brings each optional module."""
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
settings_option = partial(click.option, "--set", "changes", multiple=True, metavar="KEY=VALUE")
seed_option = click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")


class Commands(click.Group):
    """A group of commands that prints errors that a user can fix as one sentence; others keep their traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click. Passwords in the addresses of servers are kept in memory alone from here on."""
        if any("server:" in arg and "://" in arg for arg in args):
            from constitutional_ai.models.logins import hide_in_title, keep_logins

            args = [keep_logins(arg) if "server:" in arg else arg for arg in args]
            hide_in_title()
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CaiError as error:
            click.echo(f"cai: {error}", err=True)
            ctx.exit(1)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            missing = f"no module '{error.name}'. Type: pip install 'constitutional-ai[{EXTRAS[error.name]}]'"
            click.echo(f"cai: {missing}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "\ncai: interrupted. What was finished is kept: type the same command to continue.", err=True
            )
            ctx.exit(130)


def terminal() -> Console:
    """Return the terminal. Text printed to it is neither markup nor highlighted."""
    from rich.console import Console

    return Console(highlight=False, markup=False)


def quiet_libraries() -> None:
    """Suppress the progress bars and warnings of libraries."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
