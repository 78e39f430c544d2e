"""What every stage of a run is given: the run, the recipe, and the few things that all stages do alike."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from constitutional_ai.constitutions.constitution import Constitution
from constitutional_ai.data.lines import format_counts
from constitutional_ai.data.prompts import KINDS, Prompts, sample_prompts
from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError
from constitutional_ai.models.cached import cached
from constitutional_ai.models.load import loaded, model_path
from constitutional_ai.models.model import Model
from constitutional_ai.recipes.recipe import Recipe, flat
from constitutional_ai.records import Kind, Prompt
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs import layout
from constitutional_ai.runs.budget import Budget
from constitutional_ai.runs.rows import write_atomically
from constitutional_ai.runs.run import Run, digest_of
from constitutional_ai.runs.runner import HasId, Pass
from constitutional_ai.sl_cai.worked_critiques import critique_revision
from constitutional_ai.training.mixture import mixed

Row = TypeVar("Row", bound=HasId)


@dataclass(frozen=True)
class Job:
    run: Run
    recipe: Recipe
    constitution: Constitution
    prompts: dict[Kind, Prompts]
    say: Callable[[str], None]
    """Tells the user something that must not be missed."""
    said: set[str] = field(default_factory=set)
    """What is said once in a run, however many stages would."""

    def training_prompts(self, *kinds: Kind) -> list[Prompt]:
        """The prompts of some kinds that trainings may see: of each the file's, within its limit, then drafted ones."""
        files, seed = self.recipe.prompts, self.recipe.seed
        chosen = [
            sample_prompts(self.prompts[kind].train, getattr(files, kind).limit, seed) + self.drafted[kind]
            for kind in kinds
        ]
        return [prompt for prompts in chosen for prompt in prompts]

    @property
    def to_draft(self) -> dict[Kind, int]:
        """How many prompts to draft of which kinds; nothing where the recipe asks for none."""
        wanted: dict[Kind, int] = {kind: getattr(self.recipe.prompts, kind).generate for kind in KINDS}
        return {kind: number for kind, number in wanted.items() if number}

    @cached_property
    def drafted(self) -> dict[Kind, list[Prompt]]:
        """The drafts that ``00-prompts`` kept. Read once, after that stage."""
        made: dict[Kind, list[Prompt]] = {kind: [] for kind in KINDS}
        if not self.to_draft:
            return made
        if not (self.run.stage(layout.PROMPTS) / layout.DRAFTED).exists():
            raise InputError(
                f"{self.run.stage('00-prompts') / layout.DRAFTED} is gone. Pass --redo 00-prompts."
            )
        for prompt in self.run.rows(layout.PROMPTS, Prompt, layout.DRAFTED):
            made[prompt.kind].append(prompt)
        return made

    @property
    def few_shots(self) -> Path | None:
        """The folder of the worked examples; None where there are to be none."""
        return few_shots_folder(self.recipe.few_shots)

    def shown_first(self) -> dict[str, str]:
        """Digest of the worked examples. Raises InputError when their files are not as the paper's are."""
        if self.few_shots is None:
            return {"few_shots": "none"}
        shots = load_few_shots(self.few_shots)
        return {"few_shots": digest_of([critique_revision(self.few_shots), repr(shots)])}

    def config(self, *keys: str) -> dict[str, Any]:
        """The named parts of the recipe by dotted key; ``seed`` shapes every stage."""
        wanted = ("seed", *keys)
        settings = flat(self.recipe.model_dump(mode="json"))
        return {k: v for k, v in settings.items() if any(k == key or k.startswith(key + ".") for key in wanted)}

    def made(self, *stages: str) -> dict[str, str]:
        """Digests of what earlier stages made."""
        return {stage: self.run.output_digest(stage) for stage in stages}

    def weights(self, stage: str) -> str:
        """Folder of the weights that a stage trained."""
        return str(self.run.stage(stage).resolve() / layout.WEIGHTS)

    def trained(self, stage: str) -> str:
        """Name of the model that a stage trained."""
        return f"hf:{self.weights(stage)}"

    def rows(
        self,
        stage: str,
        row_type: type[Row],
        passes: Callable[[], AsyncIterable[Pass[Any, Row]]],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
        notes: Callable[[Sequence[Row]], dict[str, Any]] = lambda rows: {},
    ) -> Sequence[Row]:
        return self.run.make_rows(
            stage,
            row_type,
            passes,
            config={**config, "engine": self.recipe.engine},
            inputs=inputs,
            concurrency=self.recipe.concurrency,
            max_failures=self.recipe.max_failures,
            notes=notes,
            budget=self._budget(stage),
        )

    @contextmanager
    def loaded(self, name: str) -> Iterator[Model]:
        """As ``loaded``, with its calls kept where the recipe says."""
        cache = self.recipe.cache
        file = (
            None
            if cache is None
            else self.run.folder / layout.CALLS
            if cache == "run"
            else Path(cache).expanduser()
        )
        with (
            loaded(name, engine=self.recipe.engine, say=self._say_once) as model,
            cached(model, name, file, self.say) as asked,
        ):
            yield asked

    def _say_once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.say(text)

    def _budget(self, stage: str) -> Budget:
        return self.run.budget(self.recipe.budget.tokens, self.recipe.budget.hours, excluding=stage)

    def fitting(
        self, stage: str, rows: list[dict[str, Any]], section: str, *, free: int = 0
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The rows that are not too long for a section of the recipe, and how many are, as notes.

        Nor has any a stop string in an answer; those that have are left out, and format_counts, too.
        ``free`` tokens are kept for an answer yet to be sampled. Raises InputError when no row is left.
        """
        from constitutional_ai.training.datasets import within, without_stop_strings

        given, rows = rows, without_stop_strings(rows)
        notes: dict[str, Any] = {"with_stop_string": len(given) - len(rows)} if len(rows) < len(given) else {}
        if notes:
            self.say(
                f"{stage}: {len(given) - len(rows)} of {len(given)} rows speak for the human in an answer, and are "
                "left out."
            )
        room = getattr(self.recipe, section).max_length - free
        kept, left_out = within(rows, model_path(self._base(section)), room)
        if not kept:
            raise InputError(
                f"{stage} has nothing to train on ({left_out} of {len(given)} rows are longer than "
                f"{section}.max_length allows). Raise {section}.max_length, or the limits under prompts."
            )
        if not left_out:
            return kept, notes | {"too_long": 0}
        by_source = dict(sources(rows) - sources(kept))
        of = f" ({format_counts(by_source)})" if by_source else ""
        self.say(
            f"{stage}: {left_out} of {len(rows)} rows{of} are longer than {section}.max_length, and left out."
        )
        notes |= {"too_long": left_out} | ({"too_long_by_source": by_source} if by_source else {})
        return kept, notes

    def mixed(
        self, stage: str, rows: list[dict[str, Any]], section: str, helpful: str
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows in the proportion that ``helpful_share`` of a section asks for, and notes of what that makes."""
        share = getattr(self.recipe, section).helpful_share
        used = mixed(rows, share, helpful=helpful, seed=self.recipe.seed)
        have, cut = dict(sources(used)), dict(sources(rows) - sources(used))
        more = f", and leaves out {format_counts(cut)} for {section}.helpful_share={share}" if cut else ""
        self.say(f"{stage}: learns from {format_counts(have)}{more}.")
        return used, {"sources": have, "cut_for_helpful_share": cut}

    def given(self, folder: Path, rows: list[dict[str, Any]], section: str) -> dict[str, Any]:
        """What all trainings are given. Writes ``dataset.jsonl``: exactly what the trainer is about to see."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / layout.DATASET, lines)
        training, budget = getattr(self.recipe, section), self._budget(folder.name)
        budget.check(folder.name)

        def on_step(done: int, total: int) -> None:
            self.run.progress.step(folder.name, done, total)
            # A step is asked after its checkpoint only: what came after one would have to be made again.
            if done < total and done % training.checkpoint_steps == 1 % training.checkpoint_steps:
                budget.check(folder.name)

        return {
            "rows": rows,
            "base": model_path(self._base(section)),
            "base_name": self._base(section),
            "folder": folder,
            "training": training,
            "seed": self.recipe.seed,
            "on_step": on_step,
            "report_to": self.recipe.report_to,
        }

    def _base(self, section: str) -> str:
        models = self.recipe.models
        return (models.preference_model if section == "preference_model" else None) or models.pretrained


def sources(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many rows come from where, as far as they say so."""
    return Counter(row["source"] for row in rows if "source" in row)
