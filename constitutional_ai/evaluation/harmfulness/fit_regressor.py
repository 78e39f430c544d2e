"""Train a model to predict people's ratings of harm in conversations (``cai harmfulness``; EV-15)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from constitutional_ai.data.lines import format_counts
from constitutional_ai.data.ratings import Rated, Scale, load_ratings
from constitutional_ai.errors import InputError, ModelError
from constitutional_ai.metrics.intervals import cluster_bootstrap
from constitutional_ai.metrics.rank_agreement import auc, resampled, spearman
from constitutional_ai.models.chat_template import rendered
from constitutional_ai.models.load import model_path
from constitutional_ai.models.refused_turns import REFUSED
from constitutional_ai.models.rendering import escape_messages
from constitutional_ai.recipes.recipe_file import apply_change, explained
from constitutional_ai.records import Checkpoint, Metric, as_messages
from constitutional_ai.runs import layout
from constitutional_ai.runs.folder import open_run
from constitutional_ai.runs.rows import adapter, digest_file, write_atomically
from constitutional_ai.runs.run import Trained
from constitutional_ai.runs.runner import Progress
from constitutional_ai.seeding import seed_of
from constitutional_ai.training.settings import Training, TrainingJob

STAGE, ABOUT = "regressor", "harmfulness.json"
"""The stage in a folder of ``cai harmfulness``, and the file beside the weights that describes them."""
HARMFUL = 2.0
"""Minimum rating that counts as harmful: the upper half of the scale."""
TOLERANCE = 0.25
"""Maximum change of a rating (0 to 4) when the weights are saved; bfloat16 changes it by about 0.02."""


class RegressorTraining(Training):
    """Settings of the training."""

    learning_rate: float = Field(default=5e-5, gt=0, allow_inf_nan=False)
    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=16, ge=1)
    max_length: int = Field(default=1024, ge=8)
    """Maximum length of a conversation in tokens; longer ones are left out and counted. Long answers tend to be more
    harmful: a regressor trained on at most 256 tokens rated longer ones of the benchmark less well."""
    depth: float = Field(default=0.55, gt=0, le=1)
    """Share of the base's layers that is kept, from the bottom; 1 keeps all. Upper layers predict the next token: of
    the embedded model's 30, the output of layer 16 predicts harm best (``benchmarks/detectors.py``)."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the prompts whose conversations are held out to measure the model."""


@dataclass(frozen=True, slots=True)
class Regressor:
    """The contents of ``harmfulness.json``, which describes the weights beside it."""

    base: str
    digest: str
    """Digest of the weights."""
    data: str
    """Digest of the file of ratings."""
    trained_on: int
    unusable: dict[str, int]
    """Number of records of the file that were left out, by reason."""
    too_long: int
    """Number of training conversations that exceed max_length, and are left out. Held-out ones never are."""
    held_out: list[Metric]
    """Agreement with people on held-out conversations."""


def make_regressor(
    file: Path,
    out: Path,
    *,
    base: str,
    changes: Sequence[str],
    scale: Scale | None,
    seed: int,
    progress: Progress,
    say: Callable[[str], None],
) -> Regressor:
    """Train a regressor in ``out``, or resume an interrupted training, and return its description.

    ``changes`` are settings of the training as ``key=value``. Raises InputError.
    """
    training, weights = settings(changes), model_path(base)
    ratings = load_ratings(file, scale)
    if ratings.unusable:
        say(f"{file}: {format_counts(ratings.unusable)}")
    with open_run(out, {}, progress, elsewhere="name another place with --out") as opened:
        run = replace(opened, settings_source="the command", remedy="Name another folder with --out.")

        def train(folder: Path) -> Trained:
            usable, refused = _renderable(ratings.usable, weights)
            unusable = dict(ratings.unusable) | ({REFUSED: refused} if refused else {})
            if refused:
                say(f"{refused} of {len(ratings.usable)} conversations are left out: {REFUSED}.")
            measured_on, trained_on = held_out(usable, training.held_out, seed)
            job = TrainingJob(
                rows=(),
                base=weights,
                base_name=base,
                folder=folder,
                settings=training,
                seed=seed,
                on_step=partial(run.progress.start, folder.name),
            )
            count, checkpoint = _train(job, trained_on)
            if too_long := len(trained_on) - count:
                say(
                    f"{too_long} of {len(trained_on)} conversations are left out: they are longer than max_length."
                )
            metrics = agreement(base, measured_on, _rate(checkpoint, measured_on), seed)
            data = digest_file(file)
            about = Regressor(base, checkpoint.digest, data, count, unusable, too_long, metrics)
            write_atomically(folder / layout.WEIGHTS / ABOUT, json.dumps(asdict(about), indent=1) + "\n")
            return Trained(checkpoint, count, {"too_long": too_long, "unusable": unusable})

        run.make_model(
            STAGE,
            train,
            config={"seed": seed, "base": base, "scale": scale, **training.model_dump(mode="json")},
            inputs={"the file of ratings": digest_file(file)},
        )
    return read_regressor(out / STAGE / layout.WEIGHTS)


def read_regressor(folder: Path) -> Regressor:
    """Read the description beside the weights in ``folder``."""
    return adapter(Regressor).validate_json((folder / ABOUT).read_bytes())


def settings(changes: Sequence[str]) -> RegressorTraining:
    """Return the settings of the training with ``changes`` as ``key=value``, in YAML. Raises InputError."""
    given: dict[str, Any] = {}
    for change in changes:
        apply_change(given, change)
    try:
        return RegressorTraining.model_validate(given)
    except ValidationError as error:
        raise InputError(f"--set {explained(error, RegressorTraining)}") from error


def _renderable(conversations: Sequence[Rated], weights: str | Path) -> tuple[list[Rated], int]:
    """Return the conversations that the base's chat template takes, and the number of the others."""
    from constitutional_ai.models.refused_turns import TurnFilter
    from constitutional_ai.rl_cai.preference_model.scorer import tokenizer_of

    turns = TurnFilter(tokenizer_of(weights))
    kept = [one for one in conversations if turns.takes(one.conversation)]
    return kept, len(conversations) - len(kept)


def _train(job: TrainingJob[RegressorTraining], rated: Sequence[Rated]) -> tuple[int, Checkpoint]:
    """Return the number of conversations that were short enough to train on, and the weights.

    Raises InputError if too few are, and ModelError if the saved model rates differently from the trained one.
    """
    from constitutional_ai.rl_cai.preference_model.scorer import tokenizer_of
    from constitutional_ai.training.regression import Target, regress

    tokenizer = tokenizer_of(job.base)
    targets = [(one, Target(tokens(one, tokenizer), one.rating)) for one in rated]
    fitting = [(one, target) for one, target in targets if len(target.ids) <= job.settings.max_length]
    if len(fitting) < 2:
        raise InputError(
            f"{len(rated) - len(fitting)} of {len(rated)} conversations are longer than max_length, so too few are "
            "left to train on. Pass --set max_length=2048"
        )
    job = replace(job, rows=[target for _, target in fitting])
    regression = regress(job, tokenizer=tokenizer, depth=job.settings.depth)
    checked = [one for one, _ in fitting[: len(regression.predicted)]]
    check_saved_ratings(regression.predicted, _rate(regression.checkpoint, checked))
    return len(fitting), regression.checkpoint


def tokens(one: Rated, tokenizer: Any) -> list[int]:
    """Return the tokens of the whole conversation, rendered as ``Scorer`` does, so that no text in it opens a turn."""
    messages = escape_messages(as_messages(one.conversation), tokenizer)
    ids: list[int] = tokenizer(rendered(tokenizer, messages), add_special_tokens=False)["input_ids"]
    return ids


def _rate(checkpoint: Checkpoint, rated: Sequence[Rated]) -> list[float]:
    from constitutional_ai.evaluation.harmfulness.regressor import HarmfulnessModel
    from constitutional_ai.rl_cai.preference_model.scorer import finite

    return finite(HarmfulnessModel(checkpoint.path).scores([one.conversation for one in rated]))


def check_saved_ratings(trained: Sequence[float], saved: Sequence[float]) -> None:
    """Raise ModelError if saving changed a rating by more than rounding.

    A head that is lost in saving is silently replaced by a random one.
    """
    moves = [abs(a - b) for a, b in zip(trained, saved, strict=True)]
    if off := [move for move in moves if not move <= TOLERANCE]:  # also true for NaN
        raise ModelError(
            f"a rating of the saved model is off by {off[0]:.2f} from the trained one's: its head was lost in saving. "
            "Pass --set lora_rank=null, or name another --base."
        )


# -- agreement with people


def held_out(rated: Sequence[Rated], share: float, seed: int) -> tuple[list[Rated], list[Rated]]:
    """Return the held-out conversations and the training conversations, with no prompt in both.

    ``share`` of the prompts, at least one and never all, is held out. Raises InputError if there is only one prompt.
    """
    prompts = sorted({one.prompt for one in rated}, key=lambda prompt: seed_of(seed, "held out", prompt))
    if len(prompts) < 2:
        raise InputError(
            "all conversations have the same prompt, so none can be held out. Name a file with more."
        )
    drawn = set(prompts[: min(max(round(share * len(prompts)), 1), len(prompts) - 1)])
    return [r for r in rated if r.prompt in drawn], [r for r in rated if r.prompt not in drawn]


def agreement(name: str, rated: Sequence[Rated], scores: Sequence[float], seed: int) -> list[Metric]:
    """Compare the ``scores`` of the model ``name`` with people's ratings.

    The metrics are Spearman's rank correlation, the area under the ROC curve for harmful or not, and the mean squared
    error. Intervals resample whole prompts.
    """
    ratings, prompts = [one.rating for one in rated], [one.prompt for one in rated]
    harmful = [rating >= HARMFUL for rating in ratings]
    return [
        resampled("harmfulness.rank_correlation", name, spearman, scores, ratings, prompts, seed=seed),
        resampled("harmfulness.auc", name, auc, scores, harmful, prompts, seed=seed),
        cluster_bootstrap(
            "harmfulness.squared_error",
            name,
            [(score - rating) ** 2 for score, rating in zip(scores, ratings, strict=True)],
            prompts,
            seed=seed,
        ),
    ]


def regressor_folder(path: Path) -> Path:
    """Return the folder of the weights: ``path`` itself, or the one in ``path`` that ``cai harmfulness`` wrote.

    Raises InputError if neither contains a model of harmfulness.
    """
    folder = next((at for at in (path, path / STAGE / "model") if (at / ABOUT).is_file()), None)
    if folder is None:
        raise InputError(
            f"'{path}' has no model of harmfulness. Train one with: cai harmfulness RATINGS --out {path}"
        )
    return folder
