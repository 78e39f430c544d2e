"""Train the preference model: a language model with a scalar head, on soft labels (section 4.2; PM-3, PM-4).

Any language model can carry the head; it may be of another family than the policy.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from constitutional_ai.errors import ModelError
from constitutional_ai.records import Checkpoint, Conversation
from constitutional_ai.rl_cai.preference_model.held_out_report import Scored, pm_report
from constitutional_ai.rl_cai.preference_model.scorer import SPREAD, PreferenceModel, Scorer, tokenizer_of
from constitutional_ai.rl_cai.preference_model.training_pairs import conversations
from constitutional_ai.runs import layout
from constitutional_ai.training.settings import Training

CHECKED = 8
"""Training pairs whose scores are compared before and after saving."""
TOLERANCE = 0.25
"""How far they may move, as a share of their size. bfloat16 moves the embedded model's by 0.02 to 0.15; another head
moves them by 0.45 and more."""


def train_preference_model(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    folder: Path,
    training: Training,
    seed: int,
    on_step: Any,
    report_to: Sequence[str] = (),
    held_out: Sequence[dict[str, Any]] = (),
) -> Checkpoint:
    """Trains ``base`` with a fresh scalar head on ``rows`` and saves it to ``folder/model``.

    What it makes of the pairs ``held_out`` goes to ``report.json``, their scores to ``held_out.jsonl``, and where its
    scores lie to ``model/preference_model.json``. Raises ModelError if what was saved scores otherwise than what was
    trained.
    """
    some = [talk for row in rows[:CHECKED] for talk in conversations(row)]
    checkpoint, trained = _train(rows, some, base, base_name, folder, training, seed, on_step, report_to)
    gc.collect()  # trainers hold their models in cycles
    saved = PreferenceModel(checkpoint.path)
    check_saved(trained, saved.scores(some))
    _report(saved, held_out, folder)
    return checkpoint


def _train(
    rows: list[dict[str, Any]],
    some: Sequence[Conversation],
    base: str | Path,
    base_name: str,
    folder: Path,
    training: Training,
    seed: int,
    on_step: Any,
    report_to: Sequence[str],
) -> tuple[Checkpoint, list[float]]:
    """The saved model, and the scores of ``some`` conversations before it was saved."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import RewardConfig

    from constitutional_ai.training import launch
    from constitutional_ai.training.packing import packs
    from constitutional_ai.training.soft_labels import SoftLabelCollator, SoftLabelTrainer

    tokenizer = tokenizer_of(base)
    columns = ("prompt", "chosen", "rejected", "p_chosen")
    set_seed(seed % 2**32)  # the head's first weights are drawn
    model = launch.load(base, training, auto=AutoModelForSequenceClassification, num_labels=1)
    packed = packs(model.config)
    trainer = SoftLabelTrainer(
        model=model,
        args=RewardConfig(
            **launch.arguments(training, folder, seed=seed, report_to=report_to),
            max_length=None,  # what is too long was left out, and counted: TRL drops it without a word
            # Padded, pairs of like length go together; the batches come in random order.
            train_sampling_strategy="random" if packed else "group_by_length",
        ),
        train_dataset=Dataset.from_list(
            [{k: r[k] for k in columns} | {"length": length_of_longer_side(r)} for r in rows]
        ),
        data_collator=SoftLabelCollator(pad_token_id=tokenizer.pad_token_id, packed=packed),
        processing_class=tokenizer,
        peft_config=launch.lora(training, "SEQ_CLS", modules_to_save=["score"]),
    )
    launch.train(trainer, folder, on_step)
    scores = Scorer(trainer.model.eval(), tokenizer).scores(some)
    return launch.save(trainer.model, tokenizer, folder, base_model=base_name), scores


def length_of_longer_side(pair: dict[str, Any]) -> int:
    """Return the characters of a pair's longer side. The trainer batches pairs of similar ``length``."""
    prompt = sum(len(m["content"]) for m in pair["prompt"])
    return prompt + max(len(pair[side][0]["content"]) for side in ("chosen", "rejected"))


def check_saved(trained: Sequence[float], saved: Sequence[float]) -> None:
    """Raises ModelError if scores moved by more than rounding between memory and disk.

    A head that is lost on the way is replaced by a random one without a word, and RL would then learn noise.
    """
    size, moved = (
        _root_mean_square(trained),
        _root_mean_square([a - b for a, b in zip(trained, saved, strict=True)]),
    )
    if not moved <= TOLERANCE * size:  # so that what is no number is refused, too
        raise ModelError(
            f"scores of the saved preference model are off by {moved:.3f} from the trained one's, which are of size "
            f"{size:.3f}: its head was lost in saving. Set preference_model.lora_rank=null, or name another "
            "models.preference_model."
        )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(fmean(value**2 for value in values))


def _report(model: PreferenceModel, held_out: Sequence[dict[str, Any]], folder: Path) -> None:
    scores = model.scores([talk for row in held_out for talk in conversations(row)])
    pairs = list(zip(scores[::2], scores[1::2], strict=True))
    report = pm_report([Scored.of(row, pair) for row, pair in zip(held_out, pairs, strict=True)])
    lines = [
        json.dumps({**row, "scores": pair}, ensure_ascii=False) + "\n"
        for row, pair in zip(held_out, pairs, strict=True)
    ]
    for path, text in (
        (folder / layout.HELD_OUT_PAIRS, "".join(lines)),
        (folder / layout.PREFERENCE_MODEL_REPORT, json.dumps(asdict(report), indent=1) + "\n"),
        (folder / layout.WEIGHTS / SPREAD, json.dumps(asdict(report.spread), indent=1) + "\n"),
    ):
        path.write_text(text, encoding="utf-8")
