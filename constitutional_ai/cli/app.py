"""Define what all commands share: the terminal, errors as one sentence, common options, and quiet libraries.

All that is printed passes through ``echo``, ``terminal`` or ``Commands``, where strangers' text loses its control
characters: names of files, models and values included.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from constitutional_ai.errors import CaiError, InputError, missing_package, shortened
from constitutional_ai.safe_text import visible

if TYPE_CHECKING:
    from rich.console import Console

LOCAL = (
    *(
        "accelerate",
        "datasets",
        "gguf",
        "huggingface_hub",
        "peft",
        "pyarrow",
        "safetensors",
        "tokenizers",
        "torch",
    ),
    *("transformers", "trl"),
)
EXTRAS = {
    **dict.fromkeys(LOCAL, "local"),
    "anthropic": "anthropic",
    "fsspec": "remote",
    "inspect_ai": "inspect",
    "krippendorff": "label",
    "openvino": "openvino",
    "openvino_genai": "openvino",
    "ray": "ray",
    "s3fs": "remote",
    "selenium": "browser",
    "starlette": "serve",
    "uvicorn": "serve",
    "vllm": "vllm",
}
"""The extra that brings each optional module."""
PATH = click.Path(path_type=Path)
TOKENS = click.IntRange(1, 1_000_000)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
settings_option = partial(click.option, "--set", "changes", multiple=True, metavar="KEY=VALUE")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output, and nothing else there."
)
seed_option = click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")


LONGEST_MESSAGE = 1200
"""Characters of an error. A longer one loses its middle: its ends say what is wrong, and what to type next."""
ADVICE = {
    errno.EMFILE: "Allow more open files with: ulimit -n 4096",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EACCES: "Get permission to it, or name another place.",
    errno.EPERM: "Get permission to it, or name another place.",
    errno.EROFS: "Name a place that can be written to.",
}
"""What to do about errors of the system, by their number."""


class Commands(click.Group):
    """A group of commands that prints errors that a user can fix as one sentence; others keep their traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click. Passwords in the addresses of servers are kept in memory alone from here on."""
        if any("server:" in arg and "://" in arg for arg in args):
            from constitutional_ai.models.logins import hide_in_title, keep_logins

            args = [keep_logins(arg) if "server:" in arg else arg for arg in args]
            hide_in_title()
        with _safe_usage_errors(ctx):
            for word in args:
                if any("\ud800" <= letter <= "\udfff" for letter in word):
                    raise click.UsageError(f"'{word}' is not UTF-8 text. Rename what it names.", ctx)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _safe_usage_errors(ctx):
                return super().invoke(ctx)
        except CaiError as error:
            _fail(ctx, str(error))
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            if package not in EXTRAS:
                raise
            _fail(ctx, missing_package(package, EXTRAS[package]))
        except OSError as error:
            if error.filename is None:  # a socket's or a pipe's
                raise
            advice = ADVICE.get(error.errno or 0, "Correct this path, then type the same command.")
            _fail(ctx, f"cannot use '{shortened(str(error.filename), 200)}': {error.strerror}. {advice}")
        except KeyboardInterrupt:
            echo("\ncai: interrupted. What was finished is kept: type the same command to continue.", err=True)
            ctx.exit(130)


class Sections(Commands):
    """A group whose help lists its commands under headings, each with a whole sentence."""

    sections: dict[str, list[click.Command]]

    def add_section(self, heading: str, *commands: click.Command) -> None:
        """Add commands, to be listed under a heading."""
        self.sections = {**getattr(self, "sections", {}), heading: list(commands)}
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        width = max(map(len, self.commands))
        listed = [command for commands in self.sections.values() for command in commands]
        more = [command for command in self.commands.values() if command not in listed]
        for heading, commands in {**self.sections, **({"More": more} if more else {})}.items():
            with formatter.section(heading):
                rows = [
                    (str(one.name).ljust(width), one.get_short_help_str(LONGEST_MESSAGE)) for one in commands
                ]
                formatter.write_dl(rows)


@contextmanager
def _safe_usage_errors(ctx: click.Context) -> Iterator[None]:
    """Make the errors of click, which repeat what was typed, short and safe to show."""
    try:
        yield
    except click.UsageError as error:
        message = visible(shortened(error.format_message(), LONGEST_MESSAGE))
        raise click.UsageError(message, error.ctx or ctx) from error


def _fail(ctx: click.Context, message: str) -> None:
    echo(f"cai: {shortened(message, LONGEST_MESSAGE)}", err=True)
    ctx.exit(1)


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a line, or without ``nl`` its beginning, without the control characters of strangers."""
    click.echo(visible(str(text)), err=err, nl=nl)


def terminal(*, err: bool = False) -> Console:
    """Return the terminal. Text printed to it is neither markup nor highlighted, and has no control characters.

    In a file or a pipe it is neither broken into lines nor coloured. ``err`` is standard error.
    """
    from constitutional_ai.cli.safe_console import SafeConsole

    return SafeConsole(stderr=err, highlight=False, markup=False)


def print_json(value: dict[str, Any]) -> None:
    """Print one object as JSON, in ASCII, so that no text in it can move a cursor."""
    click.echo(json.dumps(value, indent=1))


def refuse_to_overwrite(*files: Path | None) -> None:
    """Raise InputError if there is something at one of the files that a command would write."""
    for file in files:
        if file is not None and file.exists():
            raise InputError(f"{file} already exists. Delete it, or choose another file with --out.")


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def quiet_libraries() -> None:
    """Suppress the progress bars and warnings of libraries. What is logged nevertheless is safe to show."""
    import warnings

    if logging.lastResort:
        logging.lastResort.setFormatter(_SafeFormatter())

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TQDM_DISABLE", "1")
