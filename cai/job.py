"""What every stage of a run is given: the run, the recipe, and the few things that all stages do alike."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cai.constitution import Constitution
from cai.errors import InputError
from cai.models.load import load_model, model_path
from cai.models.model import Model
from cai.recipe import Recipe
from cai.records import Kind, Prompt
from cai.runs.rows import write_whole
from cai.runs.run import Run
from cai.runs.stage import HasId, Pass
from cai.sl_cai import red_team

Row = TypeVar("Row", bound=HasId)
KINDS: tuple[Kind, ...] = ("red_team", "helpful", "borderline")


@dataclass(frozen=True)
class Job:
    run: Run
    recipe: Recipe
    constitution: Constitution
    prompts: dict[Kind, red_team.Prompts]
    say: Callable[[str], None]
    """Tells the user something that must not be missed."""

    def training_prompts(self, *kinds: Kind) -> list[Prompt]:
        """The prompts of some kinds that trainings may see, within the recipe's limits."""
        files, seed = self.recipe.prompts, self.recipe.seed
        chosen = [red_team.some(self.prompts[kind].train, getattr(files, kind).limit, seed) for kind in kinds]
        return [prompt for prompts in chosen for prompt in prompts]

    def config(self, *keys: str) -> dict[str, Any]:
        """The named parts of the recipe by dotted key; ``seed`` shapes every stage."""
        wanted = ("seed", *keys)
        flat = _flat(self.recipe.model_dump(mode="json"))
        return {k: v for k, v in flat.items() if any(k == key or k.startswith(key + ".") for key in wanted)}

    def made(self, *stages: str) -> dict[str, str]:
        """Digests of what earlier stages made."""
        return {stage: self.run.output(stage) for stage in stages}

    def weights(self, stage: str) -> str:
        """Folder of the weights that a stage trained."""
        return str(self.run.stage(stage).resolve() / "model")

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
        notes: Callable[[list[Row]], dict[str, Any]] = lambda rows: {},
    ) -> list[Row]:
        return self.run.make_rows(
            stage,
            row_type,
            passes,
            config=config,
            inputs=inputs,
            concurrency=self.recipe.concurrency,
            max_failures=self.recipe.max_failures,
            notes=notes,
        )

    def training(
        self, folder: Path, rows: list[dict[str, Any]], section: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What all trainings are given, and notes for ``stage.json``: how many rows were left out as too long.

        Writes ``dataset.jsonl``: exactly what the trainer is about to see. Raises InputError when nothing is left.
        """
        from cai.training.datasets import within

        setting, base = getattr(self.recipe, section), model_path(self.recipe.models.pretrained)
        room = setting.max_length - getattr(setting, "max_tokens", 0)
        kept, left_out = within(rows, base, room)
        if not kept:
            raise InputError(
                f"{folder.name} has nothing to train on ({left_out} rows are longer than {section}.max_length allows). "
                f"Raise {section}.max_length, or the limits under prompts."
            )
        if left_out:
            self.say(
                f"{folder.name}: {left_out} of {len(rows)} rows are longer than {section}.max_length, and left out."
            )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        write_whole(folder / "dataset.jsonl", lines)
        given = {
            "rows": kept,
            "base": base,
            "base_name": self.recipe.models.pretrained,
            "folder": folder,
            "training": getattr(self.recipe, section),
            "seed": self.recipe.seed,
            "on_step": partial(self.run.progress.step, folder.name),
        }
        return given, {"too_long": left_out}


@contextmanager
def loaded(name: str) -> Iterator[Model]:
    """A model for the length of one pass; its memory is free afterwards."""
    model = load_model(name)
    try:
        yield model
    finally:
        del model


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return flat
