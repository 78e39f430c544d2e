"""Make the shards of a stage on a Ray cluster: an actor for each, which runs the same code as ``cai run --shard``.

Ray places the actors, starts dead ones again and ends them with the command. All else is in the run's folder, which
every machine must see, or in a remote folder: an actor rebuilds its work from ``recipe.yaml`` and ``constitution.yaml``
there, goes on where its shard is, and writes its counts beside its records.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from constitutional_ai.errors import CaiError, InputError
from constitutional_ai.pipeline import make_shard, rebuilt, rebuilt_remote
from constitutional_ai.records import Usage
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import RunInUse
from constitutional_ai.runs.remote_folder import is_remote, working_folder
from constitutional_ai.runs.runner import Progress, Silent
from constitutional_ai.runs.shards import Shard
from constitutional_ai.runs.tally import Counts, read_counts

RESTARTS = 20
"""How often an actor that has died is started again: a worker that always dies ends the command."""
POLL_SECONDS = 0.5
LOCK_SECONDS = 120.0
"""How long an actor waits for a shard that the actor before it still holds, on a machine that was cut off."""
UNPLACED_SECONDS = 30.0
"""How long a shard may wait for its machine before the user is told."""


class ShardWorker:
    """One shard of a run, on the machine where Ray has placed it."""

    def __init__(self, out: str, index: int, of: int, place: str) -> None:
        """``out`` is the run's folder or its address, ``place`` the folder of the command, to which paths lead."""
        self._out, self._shard, self._place = out, Shard(index, of), place

    def make(self, stage: str) -> None:
        """Complete the shard of a stage. Raises CaiError."""
        run = None if is_remote(self._out) else Path(self._out)
        if not Path(self._place).is_dir() or (run and not (run / layout.RUN).exists()):
            raise InputError(
                f"{platform.node()} does not see {self._out} and {self._place}. Set out= to a folder that all machines "
                "of the cluster share, or to an address, and type the command in a folder that all of them have."
            )
        os.chdir(self._place)
        recipe, constitution = rebuilt(run, out=run) if run else rebuilt_remote(self._out)
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                make_shard(
                    recipe, stage, self._shard, progress=Silent(), notify=print, constitution=constitution
                )
                return
            except RunInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL_SECONDS)


class RayWorkers:
    """The actors of one command, on a cluster that is joined when the first stage needs it."""

    def __init__(self, address: str, workers: int, gpus: float, out: str, say: Callable[[str], None]) -> None:
        """``address`` is ``ray`` or that of a cluster; ``gpus`` is what each worker gets, a fraction if below 1.

        ``out`` is the run's folder or its address.
        """
        if address == "ray" and "RAY_ADDRESS" not in os.environ:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it once, when it is imported
        import ray

        self._ray, self._address, self._gpus, self._say = ray, address, gpus, say
        self._run, self._shards = working_folder(out).absolute(), Shard.all_of(workers)
        self._out = out if is_remote(out) else str(self._run)
        self._actors: dict[Shard, Any] = {}

    def make_shards(self, stage: str, progress: Progress) -> None:
        """Make all shards of a stage. Raises CaiError with the first that fails; the others are stopped."""
        self._join()
        waiting = {self._actors[shard].make.remote(stage): shard for shard in self._shards}
        shown, began, warned = _Shown(self._run, stage, self._shards, progress), time.monotonic(), False
        while waiting:
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=POLL_SECONDS)
            for future in ready:
                self._finish(future, waiting.pop(future), stage)
            shown.update()
            if not (warned or is_remote(self._out)) and time.monotonic() - began > UNPLACED_SECONDS:
                warned = True
                self._tell_unplaced(stage)

    def close(self) -> None:
        """End the actors, and Ray where this command has started it. Finished records are kept."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        if self._ray.is_initialized():
            self._ray.shutdown()

    def _join(self) -> None:
        if self._actors:
            return
        if not self._ray.is_initialized():
            self._connect()
        worker = self._ray.remote(ShardWorker).options(
            num_gpus=self._gpus,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            scheduling_strategy="SPREAD",
        )
        for shard in self._shards:
            self._actors[shard] = worker.remote(self._out, shard.index, shard.of, str(Path.cwd()))

    def _connect(self) -> None:
        """Join the cluster; without one, start Ray on this machine.

        Ray listens on the network, also when 127.0.0.1 is asked for, but answers only who has its token.
        """
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        address = os.environ.get("RAY_ADDRESS") if self._address == "ray" else self._address
        how: dict[str, Any] = {"address": address}
        if not address:
            how = {"address": "local", "num_cpus": len(self._shards), "include_dashboard": False}
        try:
            self._ray.init(**how, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises this very class on a machine that is slow to start it
            where = address or "this machine, or it took more than 30 seconds to start"
            raise InputError(
                f"no Ray cluster answers at {where}. Type 'ray start --head', then the same command, or another --on."
            ) from error

    def _finish(self, future: Any, shard: Shard, stage: str) -> None:
        """Raise what ended a shard, if something did."""
        try:
            self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CaiError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayActorError as error:
            raise InputError(
                f"the worker of shard {shard} of {stage} died {RESTARTS} times, or could not be started. Look at the "
                f"logs of Ray (ray logs); to continue, type the same command."
            ) from error

    def _tell_unplaced(self, stage: str) -> None:
        lacking = [str(shard) for shard in self._shards if not read_counts(self._run, stage, shard).total]
        if lacking:
            self._say(
                f"{stage}: no worker of Ray makes shard {', '.join(lacking[:8])} yet. It waits for a machine."
            )


class _Shown:
    """The progress of all shards as that of one stage."""

    def __init__(self, run: Path, stage: str, shards: list[Shard], progress: Progress) -> None:
        self._run, self._shards = run, shards
        self._stage, self._progress = stage, progress
        self._last: Counts | None = None

    def update(self) -> None:
        """Show what was made since the last call."""
        now = _sum([read_counts(self._run, self._stage, shard) for shard in self._shards])
        if self._last is None or now.total != self._last.total or now.failed < self._last.failed:
            self._progress.start(self._stage, now.done, now.total)
        else:
            self._advance(now, self._last)
        self._last = now

    def _advance(self, now: Counts, last: Counts) -> None:
        tokens = Usage(now.prompt_tokens - last.prompt_tokens, now.completion_tokens - last.completion_tokens)
        for number in range(now.done - last.done):
            self._progress.advance(self._stage, tokens, failed=number < now.failed - last.failed)
            tokens = Usage(0, 0)


def _sum(counts: list[Counts]) -> Counts:
    return Counts(
        *[sum(getattr(one, name) for one in counts) for name in ("done", "total", "failed")],
        *[sum(getattr(one, name) for one in counts) for name in ("prompt_tokens", "completion_tokens")],
    )
