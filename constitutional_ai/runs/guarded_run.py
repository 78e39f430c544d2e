"""A run whose stages are not mixed: what a stage was started with, and whether it may go on with what is there now.

``run.json`` has the settings and inputs of a stage from its start, so that a half-made stage is guarded as a complete
one is. A half-made one also keeps to its engine and its version of this package. A stage in which nothing was made yet
holds no setting. ``recipe.yaml`` and ``constitution.yaml`` are written when a stage is begun, and describe all that are
there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from constitutional_ai.errors import InputError, StageChanged
from constitutional_ai.runs import layout
from constitutional_ai.runs.about import read_about
from constitutional_ai.runs.durable import discard, remove
from constitutional_ai.runs.manifest import changed_inputs, commit, difference, versions
from constitutional_ai.runs.provenance import Provenance, has_records
from constitutional_ai.runs.remote_run import RemoteRun
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.shards import discard_shards
from constitutional_ai.runs.stored_run import StoredRun

PACKAGE = "constitutional-ai"
SOFTWARE, ENGINES = "software", "engines"
"""Keys of a stage in ``run.json``, beside ``config`` and ``inputs``: what a half-made stage was made with so far."""


def do_nothing(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class GuardedRun(StoredRun):
    """A run directory that knows what its stages are made with now."""

    settings_source: str = "the recipe"
    """Name of the source of the settings, in errors."""
    remedy: str = "Pass --redo {stage}, or use a new run (out=...)."
    """Advice when the settings have changed, in errors."""
    date: str | None = None
    """The day that chat templates write, for ``run.json``; None keeps what it says."""
    provenance: Provenance = field(default_factory=Provenance)
    """What stages are made with now."""
    retries_failures: bool = False
    """Whether the failed records of complete stages are tried again, and later stages follow."""
    say: Callable[[str], None] = do_nothing
    """Shows the user a message that must not be missed."""
    check_place: Callable[[], None] = do_nothing
    """Raises InputError when the folder is no longer where it was when it was opened."""
    remote: RemoteRun | None = None
    """The place in which complete stages are kept as well; None unless the run is a remote one."""

    def write_started_stages(self, stages: dict[str, Any]) -> None:
        """Write ``run.json``."""
        self.check_place()
        date = self.date or read_about(self.folder).get("date")
        about = {"name": self.folder.name, "versions": versions(), "commit": commit(), "date": date}
        about["stages"] = stages
        write_atomically(self.folder / layout.RUN, json.dumps(about, indent=1) + "\n")

    def remove_stages(self, *stages: str) -> None:
        """Delete stages and their shards, so that they are made again. Writes ``run.json`` even if ``stages`` is empty.

        What a link leads to is kept. A stage is gone, whole, before its settings are.
        """
        if self.remote:
            self.remote.forget(*stages)
        for stage in stages:
            if self.remote:
                self.remote.forget_shards(stage)
            discard_shards(self.folder, stage)
            if (link := self.stage(stage)).is_symlink():
                self.say(f"{link} is a link, and is removed. {link.readlink()} is kept.")
            discard(link)
        self.write_started_stages({k: v for k, v in self.started_stages().items() if k not in stages})

    def is_done(
        self,
        stage: str,
        config: dict[str, Any],
        inputs: dict[str, str],
        still_fits: Callable[[], bool] | None = None,
    ) -> bool:
        """Return whether a stage is complete; if it is not, write what it is made with.

        Raises StageChanged if its settings or inputs have changed, and InputError if its files have.
        """
        self.check_place()
        manifest, now = self.manifest(stage), {"config": config, "inputs": inputs}
        own = manifest and {"config": manifest.config, "inputs": manifest.inputs}
        then = self.started_stages().get(stage, own)
        changed = self._difference(stage, then, now, complete=manifest is not None)
        if changed:
            if not (self.retries_failures and then and self._only_earlier_stages_changed(stage, then, now)):
                raise StageChanged(f"{changed} {self.remedy.format(stage=stage)}")
            self._check_own(stage)
            self._follow(stage, still_fits)
        elif manifest and then and not (self.retries_failures and manifest.failures):
            self.check(stage)
            if not self.provenance.exists(self.folder):
                self._begin(stage, then)
            return True
        self._check_own(stage)
        self._begin(stage, now)
        return False

    def _difference(
        self, stage: str, then: dict[str, Any] | None, now: dict[str, Any], *, complete: bool
    ) -> str | None:
        """Return a sentence about what forbids to go on with the records of a stage; None if nothing does."""
        steps = [self.stage(name) for name in self.started_stages() if name.startswith(f"{stage}/")]
        if not has_records(self.stage(stage), steps):
            return None
        if then is None:
            return f"nothing says with which settings the records of {stage} were made."
        changed = difference(stage, then, now, self.settings_source)
        return changed or (None if complete else self._other_software(stage, then))

    def _other_software(self, stage: str, then: dict[str, Any]) -> str | None:
        """Return a sentence about another version of this package; tell the user about other packages."""
        old, new = then.get(SOFTWARE, {}), software()
        differ = [name for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
        if PACKAGE in differ:
            return f"{stage} was begun with {PACKAGE} {old[PACKAGE]}, and this is {new[PACKAGE]}. Install that again."
        if differ:
            names = ", ".join(f"{name} {old[name]} (now {new[name]})" for name in differ)
            self.say(f"warning: {stage} goes on with other software than it was begun with: {names}.")
        return None

    def hold_engine(self, stage: str, model: str, engine: str) -> None:
        """Note the engine that runs a model for a stage.

        Raises StageChanged if the stage has records for which another ran it: it rounds otherwise.
        """
        started = self.started_stages()
        entry = started.get(stage, {})
        then = entry.get(ENGINES, {}).get(model, engine)
        if then != engine and has_records(self.stage(stage)):
            raise StageChanged(
                f"{stage} was begun with {model} on the engine {then}, and {engine} would go on. Type "
                f"CAI_ENGINE={then} before the command. Or: {self.remedy.format(stage=stage)}"
            )
        if entry and entry.get(ENGINES, {}).get(model) != engine:
            entry[ENGINES] = {**entry.get(ENGINES, {}), model: engine}
            self.write_started_stages(started)

    def _check_own(self, stage: str) -> None:
        """Raise InputError if writing to a stage would write to another run, through a link."""
        folder = self.stage(stage)
        if not folder.is_symlink():
            return
        if not folder.exists() or (folder.resolve().parent / layout.RUN).exists():
            where = "another run, in which this stage is not complete" if folder.exists() else "nowhere"
            raise InputError(f"{folder} is a link to {where}. Delete the link, or pass --redo {stage}.")

    def _only_earlier_stages_changed(self, stage: str, then: dict[str, Any], now: dict[str, Any]) -> bool:
        """Return whether only the outputs of earlier stages have changed since a stage was started."""
        if difference(stage, then, {**now, "inputs": then["inputs"]}, ""):
            return False
        changed = changed_inputs(then, now)
        drafts, own = self.manifest(layout.PROMPTS), self.manifest(stage)
        if drafts and (own is None or drafts.finished > own.finished):
            changed -= {"prompts"}  # more were drafted since
        return bool(changed) and changed <= set(layout.STAGES)

    def _follow(self, stage: str, still_fits: Callable[[], bool] | None) -> None:
        """Prepare a stage to be made from what an earlier one has now: to be extended, or else to be made again."""
        if still_fits and still_fits():
            self.say(f"{stage} is extended: the records that earlier stages made since are added.")
            remove(self.stage(stage) / layout.MANIFEST)
        else:
            self.say(f"{stage} is made again: it was made before earlier stages got more records.")
            self.remove_stages(stage)

    def _begin(self, stage: str, now: dict[str, Any]) -> None:
        """Write what a stage is made with. Raises StageChanged if a stage on disk was made with something else."""
        started = self.started_stages()
        others = {k: then for k, then in started.items() if k != stage and has_records(self.stage(k))}
        for other, then in others.items():
            if changed := self.provenance.differs(other, then, self.settings_source):
                raise StageChanged(f"{changed} {self.remedy.format(stage=other)}")
        kept = started.get(stage, {}) if has_records(self.stage(stage)) else {}
        entry = {SOFTWARE: software(), **kept, **now}
        if started.get(stage) != entry:
            self.write_started_stages({**started, stage: entry})
        self.provenance.write(self.folder)


def software() -> dict[str, str]:
    """Return the versions of the packages, and the commit of this source tree where there is one."""
    return versions() | ({"commit": known} if (known := commit()) else {})
