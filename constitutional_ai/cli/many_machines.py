"""Define ``cai merge``, and what ``cai run`` does with --shard and --on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from constitutional_ai.cli.app import terminal
from constitutional_ai.errors import InputError
from constitutional_ai.runs import layout

if TYPE_CHECKING:
    from rich.console import Console

    from constitutional_ai.recipes.recipe import Recipe
    from constitutional_ai.runs.runner import Progress


class RunPlace(click.Path):
    """The folder of a run, or the address of a remote one."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        from constitutional_ai.runs.remote_folder import check_address, is_remote

        if not is_remote(str(value)):
            return super().convert(value, param, ctx)
        try:
            return check_address(str(value))
        except ValueError as error:
            raise InputError(f"the address of a run {error}.") from error


@click.command()
@click.argument("run", type=RunPlace())
def merge(run: str) -> None:
    """Merge the shards of RUN, a folder or an address, when all of a stage are complete.

    The stage is then the one that a run without shards makes, byte for byte. The next cai run does the same by itself.
    """
    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.pipeline import merge_shards

    console = terminal()
    with Bars(console) as bars:
        stages = merge_shards(run, progress=bars, notify=bars.say)
    console.print(f"merged in {run}: {', '.join(stages)}." if stages else f"{run} has no shards to merge.")


def check_options(*, shard: str | None, on: str | None, until: str | None, again: bool) -> None:
    """Raise InputError when options of ``cai run`` exclude each other."""
    if shard and not until:
        raise InputError(f"--shard needs a stage: add --until, for example --until {layout.RESPONSES}.")
    if shard and on:
        raise InputError("--shard and --on exclude each other: --on makes the shards itself. Leave one out.")
    if again and (shard or on):
        raise InputError(
            "--redo and --retry-failures work on a whole run, on one machine. Type them without --shard and --on first."
        )


def make_one_shard(settings: Recipe, stage: str, shard: str, console: Console) -> None:
    """Make one shard of a stage."""
    from constitutional_ai.cli.progress import Bars
    from constitutional_ai.pipeline import make_shard
    from constitutional_ai.runs.shards import Shard

    with Bars(console) as bars:
        make_shard(settings, stage, Shard.parse(shard), progress=bars, notify=bars.say)


@contextmanager
def workers_on(
    address: str | None, workers: int, gpus: float, out: str, say: Callable[[str], None]
) -> Iterator[Callable[[str, Progress], None] | None]:
    """Yield what makes all shards of a stage on a cluster; None without an address. Raises InputError."""
    if address is None:
        yield None
        return
    if address != "ray" and not address.startswith("ray://"):
        raise InputError("--on is 'ray', or the address of a Ray cluster such as ray://head:10001.")
    from constitutional_ai.cluster.ray_workers import RayWorkers

    cluster = RayWorkers(address, workers, gpus, out, say)
    try:
        yield cluster.make_shards
    finally:
        cluster.close()
