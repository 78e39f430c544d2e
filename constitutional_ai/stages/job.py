"""The context of a stage: the run, the recipe, and the operations that several stages share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.data.lines import format_counts
from constitutional_ai.data.prompts import KINDS, Prompts, sample_prompts
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError
from constitutional_ai.models.abilities import close
from constitutional_ai.models.cached import cached
from constitutional_ai.models.chat_template import DATE
from constitutional_ai.models.counted import counted
from constitutional_ai.models.load import loaded, model_path, name_of_weights
from constitutional_ai.models.model import Model
from constitutional_ai.models.refused_turns import REFUSED
from constitutional_ai.recipes.few_shots_digest import few_shots_digest
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.records import Kind, Prompt
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.manifest import FILES_OF
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run, Trained
from constitutional_ai.runs.runner import HasId, Pass
from constitutional_ai.stages.model_files import digest_of_model, engine_of
from constitutional_ai.training.mixture import mixed
from constitutional_ai.training.settings import TrainingJob

Row = TypeVar("Row", bound=HasId)
Rows = list[dict[str, Any]]
Notes = dict[str, Any]
"""Keys that a stage adds to ``notes`` in its ``stage.json``."""


@dataclass(frozen=True)
class Job:
    """One execution of a recipe in a run directory."""

    run: Run
    recipe: Recipe
    constitution: Constitution
    prompts: dict[Kind, Prompts]
    notify: Callable[[str], None]
    """Shows the user an important message."""
    shown: set[str] = field(default_factory=set)
    """Messages that ``notify_once`` has shown."""

    # -- prompts and worked examples

    def training_prompts(self, *kinds: Kind) -> list[Prompt]:
        """Return the training prompts of some kinds: for each kind those of its file, up to its limit, then drafts."""
        files, seed = self.recipe.prompts, self.recipe.seed
        chosen = [
            sample_prompts(self.prompts[kind].train, getattr(files, kind).limit, seed) + self.drafted[kind]
            for kind in kinds
        ]
        return [prompt for prompts in chosen for prompt in prompts]

    @property
    def drafts_wanted(self) -> dict[Kind, int]:
        """Number of prompts to draft, by kind; kinds without drafts are left out."""
        wanted: dict[Kind, int] = {kind: getattr(self.recipe.prompts, kind).generate for kind in KINDS}
        return {kind: number for kind, number in wanted.items() if number}

    @cached_property
    def drafted(self) -> dict[Kind, list[Prompt]]:
        """The drafts that stage ``00-prompts`` kept. Read once, after that stage."""
        drafts: dict[Kind, list[Prompt]] = {kind: [] for kind in KINDS}
        if not self.drafts_wanted:
            return drafts
        file = self.run.stage(layout.PROMPTS) / layout.DRAFTED
        if not file.exists():
            raise InputError(f"{file} is missing. Pass --redo {layout.PROMPTS}.")
        for prompt in self.run.rows(layout.PROMPTS, Prompt, layout.DRAFTED):
            drafts[prompt.kind].append(prompt)
        return drafts

    @property
    def few_shots(self) -> Path | None:
        """The folder of the worked examples; None if the recipe wants none."""
        return few_shots_folder(self.recipe.few_shots)

    def few_shots_digest(self) -> dict[str, str]:
        """Return the digest of the worked examples. Raises InputError when a file is not in the paper's format."""
        return {"few_shots": few_shots_digest(self.few_shots)}

    # -- the settings and inputs of a stage

    def config(self, *keys: str) -> dict[str, Any]:
        """Return the named parts of the recipe by dotted key, and ``seed``, which shapes every stage."""
        wanted = ("seed", *keys)
        settings = flat(self.recipe.model_dump(mode="json"))
        return {k: v for k, v in settings.items() if any(k == key or k.startswith(key + ".") for key in wanted)}

    def outputs(self, *stages: str) -> dict[str, str]:
        """Return the digests of the output of earlier stages."""
        return {stage: self.run.output_digest(stage) for stage in stages}

    def weights(self, stage: str) -> str:
        """Return the folder of the weights that a stage trained."""
        return str(self.run.stage(stage).resolve() / layout.WEIGHTS)

    def trained_model(self, stage: str) -> str:
        """Return the name, for ``load_model``, of the model that a stage trained."""
        return f"hf:{self.weights(stage)}"

    def in_recipe(self, *stages: str) -> tuple[str, ...]:
        """Return those of some stages that the recipe does not leave out."""
        return tuple(stage for stage in stages if stage not in self.recipe.left_out)

    @property
    def preference_model_stages(self) -> tuple[str, ...]:
        """The preference model's stage; empty if RL uses no preference model (DPO, d-RLAIF)."""
        return (layout.PREFERENCE_MODEL,) if self.recipe.rl_cai.uses_preference_model else ()

    def preference_model(self) -> PreferenceModel | None:
        """Load the preference model. Return None if RL uses none."""
        if not self.preference_model_stages:
            return None
        return PreferenceModel(self.weights(layout.PREFERENCE_MODEL))

    # -- records

    def model_files(self, config: dict[str, Any]) -> dict[str, str]:
        """Return digests of the files of the local models that ``config`` names, as inputs of a stage."""
        names = {key: name for key, name in config.items() if key.startswith("models.") and name}
        digests = {f"{FILES_OF}{key}": digest_of_model(name) for key, name in names.items()}
        return {key: digest for key, digest in digests.items() if digest}

    def make_model(
        self, stage: str, train: Callable[[Path], Trained], *, config: dict[str, Any], inputs: dict[str, str]
    ) -> None:
        """Train a model, unless the stage is complete (see ``Run.make_model``)."""
        config = {**config, "date": DATE.isoformat()}
        self.run.make_model(stage, train, config=config, inputs={**inputs, **self.model_files(config)})

    def make_rows(
        self,
        stage: str,
        row_type: type[Row],
        passes: Callable[[], AsyncIterable[Pass[Any, Row]]],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
        notes: Callable[[Collection[Row]], Notes] = lambda rows: {},
        budget: Budget | None = None,
        still_fits: Callable[[], bool] | None = None,
    ) -> Collection[Row]:
        """Make or read the records of a stage, within ``budget``, or else the recipe's (see ``Run.make_rows``)."""
        return self.run.make_rows(
            stage,
            row_type,
            passes,
            config={**config, "engine": self.recipe.engine, "date": DATE.isoformat()},
            inputs={**inputs, **self.model_files(config)},
            notes=notes,
            budget=budget or self.budget(stage),
            still_fits=still_fits,
        )

    def is_from(
        self,
        stage: str,
        row_type: type[Row],
        source: Callable[[Row], HasId],
        earlier: str,
        source_type: type[HasId],
    ) -> bool:
        """Return whether each record of a stage was made from a record that an ``earlier`` stage still has."""
        sources = {row.id: row for row in self.run.rows(earlier, source_type)}
        own = map(source, self.run.stored_rows(stage, row_type))
        return all(sources.get(row.id) == row for row in own)

    @contextmanager
    def loaded(self, name: str, stage: str) -> Iterator[Model]:
        """Load a model that makes records of a stage in the block. Its calls are cached in the recipe's ``cache``.

        Raises StageChanged if the stage has records for which another engine ran the model.
        """
        with loaded(name, engine=self.recipe.engine, say=self.notify_once) as model:
            if engine := engine_of(model):
                self.run.hold_engine(stage, name_of_weights(str(model_path(name))), engine)
            with cached(model, name, self._cache_file(), self.notify) as cached_model:
                yield counted(cached_model)

    @asynccontextmanager
    async def loaded_in_loop(self, name: str, stage: str) -> AsyncIterator[Model]:
        """Load a model as ``loaded`` does, inside an event loop, and close its connections after the block."""
        with self.loaded(name, stage) as model:
            try:
                yield model
            finally:
                await close(model)
                del model

    def _cache_file(self) -> Path | None:
        cache = self.recipe.cache
        if cache is None:
            return None
        # Shards never share a file: SQLite's WAL mode is unsafe on a disk that several machines share.
        is_own = cache == "run" or self.run.share
        return self.run.folder / layout.CALLS if is_own else Path(cache).expanduser()

    def notify_once(self, text: str) -> None:
        """Show a message, unless it was shown before."""
        if text not in self.shown:
            self.shown.add(text)
            self.notify(text)

    def budget(self, stage: str) -> Budget:
        """Return the recipe's budget, less what other stages have spent."""
        return self.run.budget(self.recipe.budget.tokens, self.recipe.budget.hours, excluding=stage)

    # -- trainings

    def usable_rows(self, stage: str, rows: Rows, section: str, *, reserve: int = 0) -> tuple[Rows, Notes]:
        """Return the rows that a section of the recipe can train on, and counts of the other rows.

        Rows with a stop string in an answer are left out, and rows longer than ``max_length`` minus ``reserve`` tokens,
        which are for an answer yet to be sampled. Raises InputError when no row is left.
        """
        from constitutional_ai.training.datasets import within, without_refused, without_stop_strings

        total, rows = len(rows), without_stop_strings(rows)
        notes: Notes = {"with_stop_string": total - len(rows)} if len(rows) < total else {}
        if notes:
            self.notify(
                f"{stage}: {total - len(rows)} of {total} rows have a human turn inside an answer, and are left out."
            )
        room = getattr(self.recipe, section).max_length - reserve
        base = model_path(self._base(section))
        taken = without_refused(rows, base)
        refused = len(rows) - len(taken)
        kept, too_long = within(taken, base, room)
        if not kept:
            raise InputError(
                f"{stage} has nothing to train on ({too_long} of {total} rows are longer than "
                f"{section}.max_length allows{f', and {refused} have {REFUSED}' if refused else ''}). "
                f"Raise {section}.max_length, or the limits under prompts."
            )
        if refused:
            self.notify(f"{stage}: {refused} of {len(rows)} rows have {REFUSED}, and are left out.")
            notes, rows = notes | {"refused": refused}, taken
        if not too_long:
            return kept, notes | {"too_long": 0}
        by_source = dict(sources(rows) - sources(kept))
        of = f" ({format_counts(by_source)})" if by_source else ""
        self.notify(
            f"{stage}: {too_long} of {len(rows)} rows{of} are longer than {section}.max_length, and left out."
        )
        notes |= {"too_long": too_long} | ({"too_long_by_source": by_source} if by_source else {})
        return kept, notes

    def mix_rows(self, stage: str, rows: Rows, section: str, *helpful: str) -> tuple[Rows, Notes]:
        """Return rows mixed by the section's ``helpful_share``, and the counts of rows by source."""
        share = getattr(self.recipe, section).helpful_share
        used = mixed(rows, share, helpful=helpful, seed=self.recipe.seed)
        have, cut = dict(sources(used)), dict(sources(rows) - sources(used))
        more = f", and leaves out {format_counts(cut)} for {section}.helpful_share={share}" if cut else ""
        self.notify(f"{stage}: learns from {format_counts(have)}{more}.")
        return used, {"sources": have, "cut_for_helpful_share": cut}

    def training_job(self, folder: Path, rows: Rows, section: str) -> TrainingJob[Any]:
        """Return the training of a section of the recipe on ``rows``, from the recipe's base model.

        Writes ``dataset.jsonl``, exactly the rows of the trainer. Raises BudgetSpent, now or in ``on_step``.
        """
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / layout.DATASET, lines)
        settings, budget = getattr(self.recipe, section), self.budget(folder.name)
        budget.check(folder.name)

        def on_step(done: int, total: int) -> None:
            self.run.progress.start(folder.name, done, total)
            # The budget is checked only in the step after a checkpoint, so that stopping loses only that step.
            if done < total and done % settings.checkpoint_steps == 1 % settings.checkpoint_steps:
                budget.check(folder.name)

        return TrainingJob(
            rows=rows,
            base=model_path(self._base(section)),
            base_name=self._base(section),
            folder=folder,
            settings=settings,
            seed=self.recipe.seed,
            on_step=on_step,
            report_to=self.recipe.report_to,
        )

    def _base(self, section: str) -> str:
        models = self.recipe.models
        return (models.preference_model if section == "preference_model" else None) or models.pretrained


def sources(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """Count rows by source; rows without a source are not counted."""
    return Counter(row["source"] for row in rows if "source" in row)
