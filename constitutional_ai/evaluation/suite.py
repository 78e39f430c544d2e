"""Define the inputs of every part of an evaluation: the candidates, the prompts, the judge, and a folder.

The folder is like a run's: each part has a folder with every answer and verdict in ``records.jsonl``. So an interrupted
evaluation resumes, and does not mix answers that were sampled with different settings.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from constitutional_ai.data.prompts import KINDS, load_prompts, sample_prompts
from constitutional_ai.errors import InputError, ModelError, RecordError
from constitutional_ai.evaluation.candidates import weights_digest
from constitutional_ai.models.cached import cached
from constitutional_ai.models.instructed import InstructedModel
from constitutional_ai.models.load import loaded_in_loop
from constitutional_ai.models.model import Model, Sampling
from constitutional_ai.recipes.recipe_file import load_recipe
from constitutional_ai.records import Candidate, Conversation, Kind, Message, Prompt
from constitutional_ai.rl_cai.feedback.questions import ANSWER, CHOICES
from constitutional_ai.rl_cai.feedback.settings import Feedback
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.run import Run
from constitutional_ai.runs.runner import Pass, Progress, Row

if TYPE_CHECKING:
    from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel

Item = TypeVar("Item")
Score = Callable[[Conversation], Awaitable[float]]
"""The score of a conversation.

Raises RecordError if it cannot be scored, for example because it is too long, and ModelError if it is not finite.
"""
REMEDY = "Pass --redo {stage}, or name another folder with --out."


def load_scorer(folder: Path, model_type: type[PreferenceModel] | None = None) -> Score:
    """Load the preference model in ``folder``, and return its score. Raises ModelError if there is none."""
    from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel, Scorable, finite

    model, scorable = (model_type or PreferenceModel)(folder), Scorable(folder)

    async def score(conversation: Conversation) -> float:
        scorable.check(conversation)  # before it joins a batch
        return finite([await model.reward(conversation)])[0]

    return score


@dataclass(frozen=True)
class Suite:
    """One evaluation."""

    run: Run
    """The folder of the evaluation."""
    candidates: tuple[Candidate, ...]
    prompts: Mapping[Kind, list[Prompt]]
    """The prompts, none of which a candidate was trained on, as far as the files say."""
    judge: str | None
    """Name of the feedback model; None leaves out everything that needs a judge."""
    feedback: Feedback
    """Settings of the questions to the judge."""
    preference_models: Mapping[str, Path]
    """Folders of preference models by name. No candidate may have been trained against one (pitfall 21)."""
    harmfulness_model: Path | None
    """Folder of a regressor of absolute harmfulness (EV-15)."""
    paper: Path | None
    """A copy of the paper's repository, for its evaluation files."""
    samples: int
    """Number of answers to each prompt."""
    temperature: float
    max_tokens: int
    turns: int
    """Number of human turns of a match; a prompt with more turns is played to its end."""
    human: str | None
    """Name of the model that writes human turns after those of the prompt."""
    anchor: str
    """Label of the model whose Elo is 0 (EV-10)."""
    seed: int
    say: Callable[[str], None]
    """Shows the user a message that must not be missed."""
    constitution: str = "default"
    """The constitution under whose principles adherence is measured: a file, or a built-in one by name."""
    few_shots: str = "built-in"
    """Worked examples before adherence's questions in the plain format, as a recipe names them."""
    limit: int | None = None
    """Maximum number of prompts of each kind, and of questions of each file; None uses all."""

    @asynccontextmanager
    async def loaded(self, name: str) -> AsyncIterator[Model]:
        """Load a model whose calls are cached, for one pass. Close its connections and free its memory afterwards."""
        async with loaded_in_loop(name, say=self.say) as model:
            with cached(model, name, self.run.folder / layout.CALLS, self.say) as caching:
                yield caching

    @property
    def sampling_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "max_tokens": self.max_tokens}

    @property
    def sampling(self) -> Sampling:
        """How answers, replies and human turns are sampled."""
        return Sampling(**self.sampling_config)

    def rows(
        self,
        stage: str,
        row_type: type[Row],
        passes: Callable[[], AsyncIterable[Pass[Any, Row]]],
        *,
        config: dict[str, Any],
        inputs: dict[str, str],
    ) -> list[Row]:
        """Make the missing records of a part, or of a step of it such as ``answers/pm-kind``, and return all records.

        The records depend on ``config`` and ``inputs``. Raises StageChanged if existing records depend on others.
        """
        weights = {f"the weights of {c.label}": weights_digest(c.model) for c in self.candidates}
        weights |= {f"the instructions of {c.label}": c.instructions for c in self.candidates if c.instructions}
        rows = self.run.make_rows(
            stage,
            row_type,
            passes,
            config={"seed": self.seed, "models": {c.label: c.model for c in self.candidates}, **config},
            inputs={**weights, **inputs},
        )
        return list(rows)

    def answered(
        self,
        stage: str,
        row_type: type[Row],
        items_of: Callable[[str], Mapping[str, Item]],
        step: Callable[[Model, str, Item], Awaitable[Row]],
        *,
        by: Mapping[str, str] | None = None,
        needs_scores: bool = False,
        config: dict[str, Any],
        inputs: dict[str, str],
    ) -> list[Row]:
        """Return the records that each model makes of its items, with ``step(model, label, item)``.

        ``items_of`` a label are keyed by the ids of the records. The models are the candidates, or ``by``: names by
        label. ``needs_scores`` leaves out models that give no log-probabilities.
        """

        instructions = {} if by else {one.label: one.instructions for one in self.candidates}

        async def passes() -> AsyncIterator[Pass[Item, Row]]:
            for label, name in (by or {one.label: one.model for one in self.candidates}).items():
                if items := items_of(label):
                    async with self.loaded(name) as model:
                        if text := instructions.get(label):
                            model = InstructedModel(model, text)
                        if not needs_scores or await self.gives_scores(label, model, stage):
                            yield Pass(items, partial(step, model, label))
                    del model  # free it before the next is loaded

        return self.rows(stage, row_type, passes, config=config, inputs=inputs)

    def scored(
        self,
        part: str,
        row_type: type[Row],
        items: Mapping[str, Item],
        step: Callable[[Score, Item], Awaitable[Row]],
        *,
        name: str,
        inputs: dict[str, str],
    ) -> list[Row]:
        """Return the records that the preference model called ``name`` makes of ``items``, by the records' ids."""
        folder = self.preference_models[name]

        async def passes() -> AsyncIterator[Pass[Item, Row]]:
            yield Pass(items, partial(step, load_scorer(folder)))

        weights = {f"the weights of {name}": weights_digest(f"hf:{folder}")}
        config = {"preference_model": str(folder)}
        return self.rows(f"{part}/pm-{name}", row_type, passes, config=config, inputs={**inputs, **weights})

    async def gives_scores(self, label: str, model: Model, part: str) -> bool:
        """Return whether the model gives log-probabilities; if not, tell the user that ``part`` leaves it out.

        Raises ModelError if the model gives nothing at all, such as a server that cannot be reached.
        """
        question = (Message("user", "(A) or (B)?"), Message("assistant", ANSWER))
        try:
            await model.score(question, CHOICES)
        except RecordError:
            return True  # the fault is in this one question, not in the model
        except ModelError:
            with suppress(RecordError):
                await model.generate(question[:1], Sampling(max_tokens=1))
            self.say(f"{part}: {label} ({model.name}) gives no log-probabilities, so it is not measured.")
            return False
        return True


# -- from the command's arguments to a suite


@contextmanager
def open_evaluation(folder: Path, progress: Progress, redo: str | None = None) -> Iterator[Run]:
    """Open the folder of an evaluation, locked for this process.

    ``redo`` is a part, or a step of one, whose records are deleted. Raises InputError if the folder cannot be used.
    """
    if (folder / layout.RECIPE).exists():
        raise InputError(f"{folder} is a run. Name a folder in it with --out, such as {folder / layout.SUITE}")
    with open_run(folder, {}, progress, elsewhere="name another place with --out") as run:
        run = replace(run, settings_source="the command", remedy=REMEDY)
        # Even if nothing is removed, this marks the folder as an evaluation.
        run.remove_stages(
            *[step for step in run.started_stages() if redo and (step == redo or step.startswith(f"{redo}/"))]
        )
        if redo:  # until the part is measured again, it has no metrics
            (run.stage(redo.partition("/")[0]) / layout.METRICS).unlink(missing_ok=True)
        yield run


def evaluation_prompts(file: Path | None, limit: int | None, seed: int) -> dict[Kind, list[Prompt]]:
    """Return the prompts of a file, or our held-out prompts, by kind; at most ``limit`` of each kind.

    Raises InputError if the file cannot be read.
    """
    if file is None:
        prompts = [prompt for kind in KINDS for prompt in load_prompts("built-in", kind).held_out]
    else:
        loaded_file = load_prompts(str(file), "red_team")
        prompts = [*loaded_file.train, *loaded_file.held_out]
    return {kind: sample_prompts([p for p in prompts if p.kind == kind], limit, seed) for kind in KINDS}


def judge_settings(
    runs: Sequence[Path], judge: str | None, changes: Sequence[str]
) -> tuple[str | None, Feedback]:
    """Return the name of the feedback model and the settings of its questions, changed by ``key=value``.

    Both are those of the first run, unless the user names a ``judge``, which gets the paper's settings.
    """
    recipe_name = str(runs[0] / layout.RECIPE) if runs and judge is None else "paper"
    named = [f"models.feedback={judge}"] if judge else []
    recipe = load_recipe(recipe_name, [*named, *(f"feedback.{change}" for change in changes)])
    return (judge or (recipe.models.feedback if runs else None)), recipe.feedback


def principles_of_judge(runs: Sequence[Path], judge: str | None, constitution: str | None) -> tuple[str, str]:
    """Return the constitution and the worked examples of adherence's questions: the first run's, or the user's.

    A ``judge`` that the user names gets the built-in worked examples; without a run, the constitution is the default.
    """
    own = load_recipe(str(runs[0] / layout.RECIPE)).few_shots if runs and judge is None else "built-in"
    return constitution or (str(runs[0] / layout.CONSTITUTION) if runs else "default"), own
