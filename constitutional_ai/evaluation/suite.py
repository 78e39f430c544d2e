"""What every part of an evaluation is given: the models, the prompts, the judge, and a folder to keep answers in.

An evaluation is kept as a run is: a folder for each part with every answer and verdict in ``records.jsonl``, so that it
goes on where it was killed, and refuses to mix answers that were made under two settings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from constitutional_ai.data.worked_examples import few_shots_folder
from constitutional_ai.errors import InputError, ModelError, RecordError
from constitutional_ai.models.cached import cached
from constitutional_ai.models.load import check_name, loaded, model_path
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.recipes.recipe import Feedback, Recipe
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Candidate, Kind, Message, Prompt
from constitutional_ai.rl_cai.feedback.label import Asking
from constitutional_ai.rl_cai.feedback.questions import ANSWER, CHOICES
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.runs import layout
from constitutional_ai.runs.rows import read_steps
from constitutional_ai.runs.run import Run, read_run
from constitutional_ai.runs.runner import HasId, Pass

Row = TypeVar("Row", bound=HasId)


@dataclass(frozen=True)
class Suite:
    run: Run
    """The evaluation's own folder."""
    candidates: tuple[Candidate, ...]
    prompts: Mapping[Kind, list[Prompt]]
    """None of them was trained on, as far as the files say."""
    judge: str | None
    """The feedback model's name; None where nobody judges, and what needs a judge is not measured."""
    feedback: Feedback
    """How the judge is asked."""
    preference_models: Mapping[str, Path]
    """Folders by what each is called. None may have been trained against (pitfall 21): the user names them."""
    harmfulness_model: Path | None
    """Folder of a regressor of absolute harmfulness (EV-15)."""
    paper: Path | None
    """A copy of the paper's repository, for its evaluation files."""
    samples: int
    """Answers to each prompt."""
    temperature: float
    max_tokens: int
    turns: int
    """Human turns of a match, at least as many as its prompt has."""
    human: str | None
    """Who writes the human turns that a prompt lacks."""
    anchor: str
    """Label of the model whose Elo is 0 (EV-10)."""
    seed: int
    concurrency: int
    max_failures: int
    say: Callable[[str], None]
    """Tells the user something that must not be missed."""
    ties: Literal["discarded", "half"] = "discarded"
    """What a tie is in Elo: nothing, as in the paper (EV-9), or half a win for each."""
    limit: int | None = None
    """Prompts of each kind, and questions of each file; None takes all."""

    @contextmanager
    def loaded(self, name: str) -> Iterator[Model]:
        """The model for the length of one pass, its calls kept; its memory is free afterwards."""
        with loaded(name) as model, cached(model, name, self.run.folder / layout.CALLS, self.say) as asked:
            yield asked

    def asking(self, judge: Model) -> Asking:
        return self.feedback.asking(judge.format, load_few_shots(self._few_shots) if self._few_shots else None)

    @property
    def _few_shots(self) -> Path | None:
        return few_shots_folder("built-in")

    def rows(
        self,
        part: str,
        row_type: type[Row],
        passes: Callable[[], AsyncIterable[Pass[Any, Row]]],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
    ) -> list[Row]:
        """A part's records, made where they are missing. ``config`` and ``inputs`` are what they depend on."""
        weights = {f"the weights of {c.label}": weights_digest(c.model) for c in self.candidates}
        made = self.run.make_rows(
            part,
            row_type,
            passes,
            config={"seed": self.seed, "models": {c.label: c.model for c in self.candidates}, **config},
            inputs={**weights, **inputs},
            concurrency=self.concurrency,
            max_failures=self.max_failures,
        )
        return list(made)

    async def scores(self, candidate: Candidate, model: Model, part: str) -> bool:
        """Whether it gives log-probabilities; where it does not, the user is told that ``part`` goes without.

        Raises ModelError where it gives nothing at all, as a server that is away.
        """
        asked = (Message("user", "(A) or (B)?"), Message("assistant", ANSWER))
        try:
            await model.score(asked, CHOICES)
        except RecordError:
            return True  # what is wrong with one question is said of that question
        except ModelError:
            with suppress(RecordError):
                await model.generate(asked[:1], Sampling(max_tokens=1))
            self.say(
                f"{part}: {candidate.label} ({model.name}) gives no log-probabilities, so it is not measured."
            )
            return False
        return True


def candidates_of(names: Iterable[str]) -> list[Candidate]:
    """The models that are named: runs, each with all its models and snapshots, or models, also as ``label=model``.

    Raises InputError for a name that is neither, and for two models under one label.
    """
    asked = list(names)
    runs = runs_in(asked)
    found = [
        one
        for name in asked
        for one in (_of_run(Path(name), alone=len(runs) < 2) if Path(name) in runs else [_named(name)])
    ]
    labels = [one.label for one in found]
    if twice := next((one for one in found if labels.count(one.label) > 1), None):
        raise InputError(f"two models are called '{twice.label}'. Name one otherwise: OTHER={twice.model}")
    return [replace(one, parameters=_parameter_count(one.model)) for one in found]


def runs_in(names: Iterable[str]) -> list[Path]:
    """Those of the names that are folders of runs."""
    return [Path(name) for name in names if (Path(name) / layout.RUN).exists()]


def _named(name: str) -> Candidate:
    label, _, model = name.partition("=") if "=" in name.partition(":")[0] else (name, "", name)
    if Path(name).is_dir():
        raise InputError(f"'{name}' is no run: it holds no run.json. A model in a folder is hf:{name}")
    check_name(model)
    return Candidate(label, model, label)


def _of_run(folder: Path, *, alone: bool) -> list[Candidate]:
    """``alone``, labels are the roles; else the folder's name stands before them."""
    if not (folder / layout.RECIPE).exists():
        raise InputError(f"{folder} is no run of cai run: it holds no recipe.yaml.")
    run, before = read_run(folder), "" if alone else f"{folder.resolve().name}:"
    recipe = load_recipe(str(folder / layout.RECIPE))
    made = [(layout.START, recipe.models.helpful)] + [
        (role, f"hf:{(run.stage(stage) / layout.WEIGHTS).resolve()}")
        for role, stage in ((layout.SL_CAI, layout.SL_CAI_MODEL), (layout.RL_CAI, layout.RL_CAI_MODEL))
        if run.manifest(stage)
    ]
    snapshots = [
        Candidate(
            f"{before}{layout.RL_CAI}@{path.name}",
            f"hf:{path.resolve()}",
            layout.RL_CAI,
            str(folder),
            sequences=int(path.name),
        )
        for path in run.snapshots()
    ]
    last = {layout.RL_CAI: _sequences(run, recipe)}
    whole = [
        Candidate(f"{before}{role}", model, role, str(folder), sequences=last.get(role, 0))
        for role, model in made
    ]
    return whole + snapshots


def _sequences(run: Run, recipe: Recipe) -> int | None:
    """Prompts that RL had seen at its end, counted as its snapshots are: with every epoch, and no further than it came.

    None where it says nothing, and for DPO, which samples nothing.
    """
    how = recipe.rl_cai
    steps = [row["step"] for row in read_steps(run.stage(layout.RL_CAI_MODEL) / layout.STEPS) if "step" in row]
    if not steps or how.algorithm == "dpo":
        return None
    return int(max(steps)) // how.passes * (how.batch_size // how.answers)


def weights_digest(name: str) -> str:
    """Of a model's files where they are here: enough to notice other weights, without reading gigabytes."""
    if not name.startswith(("hf:", "bundled:")):
        return ""
    seen = hashlib.sha256()
    for file in sorted(Path(model_path(name)).glob("*.safetensors")):
        size = file.stat().st_size
        seen.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(READ, size // 16)):
                stream.seek(start)
                seen.update(stream.read(READ))
    return seen.hexdigest()[:16]


READ = 65536
"""Bytes read at each of sixteen places of a file or so."""


def _parameter_count(name: str) -> int | None:
    """How many the weights hold, read from the headers of their files; None where there are none here."""
    from safetensors import safe_open

    if not name.startswith(("hf:", "bundled:")):
        return None
    total = 0
    for file in Path(model_path(name)).glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                total += math.prod(tensors.get_slice(key).get_shape())
    return total or None
