"""Run all stages of the method in order, as in figure 1 of the paper from top left to bottom right.

``PIPELINE`` gives the order; the stages are in ``constitutional_ai/stages/``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from constitutional_ai import machine
from constitutional_ai.constitutions.constitution import Constitution, load_constitution
from constitutional_ai.constitutions.control import apply_control
from constitutional_ai.data.prompts import Prompts
from constitutional_ai.errors import InputError
from constitutional_ai.models.chat_template import DATE
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Kind
from constitutional_ai.rl_cai.feedback.label import METHODS
from constitutional_ai.rl_cai.preference_model import training_pairs
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import check_folder, open_run
from constitutional_ai.runs.provenance import Provenance
from constitutional_ai.runs.remote_folder import RemoteFolder, check_address, is_remote, working_folder
from constitutional_ai.runs.remote_run import remote_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Progress
from constitutional_ai.runs.shards import Shard, shards_of
from constitutional_ai.runs.share import Share
from constitutional_ai.stages.calls import check_processes
from constitutional_ai.stages.check_models import (
    apart,
    check_models,
    divided,
    load_all_prompts,
    usable_prompts,
)
from constitutional_ai.stages.feedback import comparisons, preference_labels, preference_model
from constitutional_ai.stages.held_out import evaluation
from constitutional_ai.stages.job import Job
from constitutional_ai.stages.reinforcement import rl_cai_model
from constitutional_ai.stages.supervised import drafts, responses, revisions, sl_cai_model
from constitutional_ai.training import trackers

PIPELINE: dict[str, Callable[[Job], None]] = {
    layout.PROMPTS: drafts,
    layout.RESPONSES: responses,
    layout.REVISIONS: revisions,
    layout.SL_CAI_MODEL: sl_cai_model,
    layout.COMPARISONS: comparisons,
    layout.PREFERENCE_LABELS: preference_labels,
    layout.PREFERENCE_MODEL: preference_model,
    layout.RL_CAI_MODEL: rl_cai_model,
    layout.EVALUATION: evaluation,
}


def run_pipeline(
    recipe: Recipe,
    *,
    progress: Progress,
    notify: Callable[[str], None],
    until: str | None = None,
    redo: str | None = None,
    retry_failures: bool = False,
    after_stage: Callable[[Run, Recipe, Constitution], object] = lambda *_: None,
    siblings: Sequence[Path] = (),
    constitution: Constitution | None = None,
    share: Share | None = None,
    make_shards: Callable[[str, Progress], None] | None = None,
) -> Run:
    """Complete the stages of a run, in order, up to and including ``until``.

    ``redo`` names a stage that is first removed, with all later ones, which depend on it. ``retry_failures`` tries the
    failed records of complete stages again; a later stage of which each record has one source is extended by what is
    new, and all others are made again. ``after_stage`` is called after each stage, unless the run was made with another
    recipe or constitution. A stage that a run in ``siblings`` completed with the same settings and inputs is linked.
    ``constitution`` is that of the recipe, with its control applied, if it is known. Of a ``share`` only that shard is
    made; ``make_shards`` makes all shards of a stage elsewhere. Raises CaiError when a stage cannot be completed;
    complete stages are kept.
    """
    wanted = list(PIPELINE)[: list(PIPELINE).index(until) + 1 if until else None]
    if redo and redo not in wanted:
        raise InputError(
            f"--redo {redo} would do nothing: {until} comes before it. Leave out --until, or name a later stage."
        )
    trackers.check(recipe.report_to)
    check_processes(recipe)
    constitution = constitution or constitution_of(recipe)
    check_principles(recipe, constitution)
    prompts = load_all_prompts(recipe)
    # Read one row now, so that a bad file raises here and not hours later.
    training_pairs.helpfulness(recipe.preference_model.helpfulness.file, 1, 0)
    folder = share.folder if share else recipe.folder
    whole = share.remote if share else remote_run(recipe.out, notify)
    remote = whole.shard(share.shard) if whole and share else whole
    with open_run(folder, _texts(recipe, constitution), progress) as opened:
        others = tuple(siblings)
        opened = replace(opened, share=share, make_shards=make_shards, siblings=others, remote=remote)
        if remote:
            remote.say(f"complete stages are kept in {recipe.out}, and this machine works in {folder}.")
            remote.fetch_about()
            before = wanted[: wanted.index(redo)] if redo else wanted
            for stage in [share.stage] if share else before:  # now, so that no model of theirs is looked for
                remote.fetch(stage)
        if share:
            share.link_earlier_stages(opened, _left_out(recipe))
        check_models(recipe, _unfinished(opened, wanted, redo), notify)
        prompts = usable_prompts(recipe, apart(prompts, notify), notify)
        for line in divided(recipe, prompts) if not share else ():
            notify(line)
        job = _job(opened, recipe, constitution, prompts, retry_failures, notify)
        run = job.run
        failed = failures(run, wanted) if retry_failures else {}
        if retry_failures:
            notify(_owed(failed))
        for stage in wanted:
            if stage == redo:  # only now, because the earlier stages have been checked
                redone(run, redo, notify)
            PIPELINE[stage](job)
            machine.release_memory()
            if stage in failed:
                left = failures(run, [stage]).get(stage, 0)
                notify(f"{stage}: {failed[stage] - left} of {failed[stage]} failed records were made.")
            if not run.provenance.unwritten(run.folder):
                after_stage(run, recipe, constitution)
        if owed := {} if share else failures(run, wanted):
            notify(f"failed: {_counts(owed)}. The same command with --retry-failures tries them again.")
        tell_what_differs(run, wanted, notify)
        return run


def make_shard(
    recipe: Recipe,
    stage: str,
    shard: Shard,
    *,
    progress: Progress,
    notify: Callable[[str], None],
    constitution: Constitution | None = None,
) -> None:
    """Complete one shard of a stage of a run whose earlier stages are complete, in the shard's own folder.

    Nothing is done if the run has the stage already. Raises CaiError.
    """
    if stage in _left_out(recipe):
        raise InputError(f"{stage} is not part of this recipe. Name another stage after --until.")
    share = Share(recipe.folder, stage, shard, remote_run(recipe.out, notify))
    check_folder(share.run)
    share.fetch()
    share.check()
    if share.is_merged:
        notify(f"{stage} is complete in {share.run}: shard {shard} has nothing to do.")
        return
    run_pipeline(recipe, progress=progress, notify=notify, until=stage, constitution=constitution, share=share)
    notify(f"shard {shard} of {stage} is complete in {share.folder}.")


def _left_out(recipe: Recipe) -> frozenset[str]:
    """Return the stages of records that a recipe does not make."""
    return recipe.left_out if recipe.drafts else recipe.left_out | {layout.PROMPTS}


def merge_shards(out: str | Path, *, progress: Progress, notify: Callable[[str], None]) -> list[str]:
    """Merge the shards of a run, a folder or a remote one, and return the names of the stages. Raises CaiError."""
    folder = working_folder(str(out))
    if remote := remote_run(str(out), notify):
        check_folder(folder)
        for stage in layout.SHARDED:
            remote.fetch_shards(stage)
    stages = [stage for stage in layout.SHARDED if shards_of(folder, stage)]
    for stage in stages:
        # The whole run's own recipe is that of its earlier stages.
        recipe, constitution = rebuilt(shards_of(folder, stage)[0].folder(folder), out=out)
        run_pipeline(recipe, progress=progress, notify=notify, until=stage, constitution=constitution)
    return stages


def rebuilt(place: Path, *, out: str | Path) -> tuple[Recipe, Constitution]:
    """Return the recipe and the constitution of a run, from its own files in ``place``. Raises InputError."""
    recipe = load_recipe(str(place / layout.RECIPE))
    moved = recipe.folder.resolve() != working_folder(str(out)).resolve()
    if moved or is_remote(str(out)):  # the run was moved, or the command is typed elsewhere
        recipe = recipe.model_copy(update={"out": str(out)})
    return recipe, load_constitution(place / layout.CONSTITUTION)


def rebuilt_remote(out: str) -> tuple[Recipe, Constitution]:
    """Return the recipe and the constitution of a remote run, from its files there. Raises InputError."""
    place = RemoteFolder(check_address(out))
    with TemporaryDirectory() as folder:
        for name in (layout.RECIPE, layout.CONSTITUTION):
            place.get(name, Path(folder, name))
        return rebuilt(Path(folder), out=out)


def constitution_of(recipe: Recipe) -> Constitution:
    """Return the recipe's constitution, with its control applied. Raises InputError."""
    return apply_control(load_constitution(recipe.constitution), recipe.control, recipe.seed)


def _texts(recipe: Recipe, constitution: Constitution) -> dict[str, str]:
    """Return the texts of the files that say what made a run."""
    return {layout.RECIPE: recipe.to_yaml(), layout.CONSTITUTION: constitution.to_yaml()}


def _job(
    opened: Run,
    recipe: Recipe,
    constitution: Constitution,
    prompts: dict[Kind, Prompts],
    retries_failures: bool,
    notify: Callable[[str], None],
) -> Job:
    """Return the job of an open run, which knows what its stages are made with."""
    job = Job(opened, recipe, constitution, prompts, notify)
    settings = flat(recipe.model_dump(mode="json")) | job.few_shots_digest()
    run = replace(
        opened,
        concurrency=-(-recipe.concurrency // (opened.share.shard.of if opened.share else 1)),
        max_failures=recipe.max_failures,
        provenance=Provenance(_texts(recipe, constitution), settings, {"constitution": constitution.digest}),
        retries_failures=retries_failures,
        say=job.notify_once,
        date=DATE.isoformat(),
    )
    return replace(job, run=run)


def _owed(failed: dict[str, int]) -> str:
    if not failed:
        return "no complete stage has failed records."
    return f"failed records are tried again: {_counts(failed)}."


def _counts(failed: dict[str, int]) -> str:
    return ", ".join(f"{count} of {stage}" for stage, count in failed.items())


def _unfinished(run: Run, wanted: list[str], redo: str | None) -> set[str]:
    """Return the stages that are yet to be completed."""
    again = wanted[wanted.index(redo) :] if redo else []
    return {stage for stage in wanted if stage in again or run.manifest(stage) is None}


def failures(run: Run, stages: Iterable[str]) -> dict[str, int]:
    """Return the number of failed records of the complete stages that have any."""
    done = {stage: manifest for stage in stages if (manifest := run.manifest(stage))}
    return {stage: manifest.failures for stage, manifest in done.items() if manifest.failures}


def redone(run: Run, redo: str, notify: Callable[[str], None]) -> None:
    """Remove a stage and all later ones, and say so if there is nothing to remove."""
    stages = list(PIPELINE)[list(PIPELINE).index(redo) :]
    if run.remote is None and not any(run.stage(stage).exists() for stage in stages):
        notify(f"--redo {redo} removes nothing: neither this stage nor a later one was made.")
    elif run.remote is None and not run.stage(redo).exists():
        notify(f"--redo {redo} makes only later stages again: this one was not made.")
    run.remove_stages(*stages)


def tell_what_differs(run: Run, wanted: list[str], notify: Callable[[str], None]) -> None:
    """Say which files of the run are not those of this command, and which later stages were made before."""
    if names := run.provenance.unwritten(run.folder):
        notify(
            f"{' and '.join(names)} in {run.folder} are kept: they are what made the stages, which are complete."
        )
    stale = [stage for stage in PIPELINE if stage not in wanted and run.is_stale(stage)]
    if stale:
        notify(
            f"{' and '.join(stale)} on disk: made before earlier stages got more records. The same command without "
            "--until brings all stages up to date."
        )


def check_principles(recipe: Recipe, constitution: Constitution) -> None:
    """Raise InputError if a constitution lacks principles that the recipe needs."""
    if not constitution.for_revision or not constitution.for_preference:
        raise InputError(
            f"constitution '{recipe.constitution}' needs a principle with 'revision' and one with 'preference'. "
            "Add the missing one."
        )
    if recipe.comparisons.contrast == "personas" and not constitution.for_likelihood:
        raise InputError(
            f"comparisons.contrast=personas needs principles with 'upheld' and 'broken', and constitution "
            f"'{recipe.constitution}' has none. Add them, or set comparisons.contrast=prompt."
        )
    if not METHODS[recipe.feedback.method].principles(constitution):
        raise InputError(
            f"feedback.method={recipe.feedback.method} needs principles with 'upheld' and 'broken', and constitution "
            f"'{recipe.constitution}' has none. Add them, or set feedback.method=multiple_choice."
        )
    if recipe.rl_cai.reward == "propositions" and not constitution.propositions:
        raise InputError(
            f"rl_cai.reward=propositions needs principles with a 'proposition', and constitution "
            f"'{recipe.constitution}' has none. Add them, or set rl_cai.reward=preference_model."
        )
