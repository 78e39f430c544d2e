"""Train the preference model: a language model with a scalar head, on soft labels (section 4.2; PM-3, PM-4).

Any language model can have the head; it may be of another family than the policy.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from constitutional_ai.errors import ModelError
from constitutional_ai.records import Checkpoint, Conversation
from constitutional_ai.rl_cai.preference_model.held_out_report import Scored, pm_report
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel, Scorer, tokenizer_of
from constitutional_ai.rl_cai.preference_model.training_pairs import conversations
from constitutional_ai.runs import layout
from constitutional_ai.training.settings import Training, TrainingJob

SPREAD = "preference_model.json"
"""The file beside the weights with mean and scale of the held-out scores, to centre scores by (PM-6)."""
CHECKED = 8
"""Number of training pairs whose scores are compared before and after saving."""
TOLERANCE = 0.25
"""Maximum relative change of these scores. bfloat16 changes those of the embedded model by 0.02 to 0.15; a wrong head
changes them by 0.45 or more."""


def train_preference_model(job: TrainingJob[Training], held_out: Sequence[dict[str, Any]] = ()) -> Checkpoint:
    """Train the base with a fresh scalar head on ``training_pairs.examples``, and save it.

    The pairs ``held_out`` are scored afterwards: the scores go to ``held_out.jsonl``, accuracy and calibration to
    ``report.json``, and mean and scale of the scores to ``model/preference_model.json``. Raises ModelError if the saved
    model scores differently from the trained one.
    """
    checked = [talk for row in job.rows[:CHECKED] for talk in conversations(row)]
    checkpoint, trained = fit(job, checked)
    gc.collect()  # trainers keep their models in reference cycles
    saved = PreferenceModel(checkpoint.path)
    check_saved(trained, saved.scores(checked))
    _report(saved, held_out, job.folder)
    return checkpoint


def fit(job: TrainingJob[Training], checked: Sequence[Conversation] = ()) -> tuple[Checkpoint, list[float]]:
    """Return the saved model, and the scores of ``checked`` conversations before saving.

    Of several processes, each calls this, and rank zero alone goes on with ``train_preference_model``.
    """
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import RewardConfig

    from constitutional_ai.training import launch
    from constitutional_ai.training.packing import packs
    from constitutional_ai.training.soft_labels import SoftLabelCollator, SoftLabelTrainer

    tokenizer = tokenizer_of(job.base)
    config = launch.lora(job.settings, "SEQ_CLS", modules_to_save=["score"])

    def load() -> Any:
        set_seed(job.seed % 2**32)  # the head's first weights are random
        return launch.load(job.base, job.settings, auto=AutoModelForSequenceClassification, num_labels=1)

    model = load()
    packed = packs(model.config)
    trainer = SoftLabelTrainer(
        model=model,
        args=RewardConfig(
            **launch.arguments(job),
            max_length=None,  # longer pairs are already left out and counted; TRL would drop them silently
            # With padding, batches have pairs of similar length, and come in random order.
            train_sampling_strategy="random" if packed else "group_by_length",
        ),
        train_dataset=Dataset.from_list([row | {"length": length_of_longer_side(row)} for row in job.rows]),
        data_collator=SoftLabelCollator(pad_token_id=tokenizer.pad_token_id, packed=packed),
        processing_class=tokenizer,
        peft_config=config,
    )
    launch.train(trainer, job)
    whole = launch.whole(trainer, load, config).eval()
    scores = Scorer(whole, tokenizer).scores(checked)
    return launch.save(whole, tokenizer, job), scores


def length_of_longer_side(pair: dict[str, Any]) -> int:
    """Return the length of a pair's longer side in characters. The trainer batches pairs of similar ``length``."""
    prompt = sum(len(m["content"]) for m in pair["prompt"])
    return prompt + max(len(pair[side][0]["content"]) for side in ("chosen", "rejected"))


def check_saved(trained: Sequence[float], saved: Sequence[float]) -> None:
    """Raise ModelError if saving changed scores by more than rounding.

    A head that is lost in saving is silently replaced by a random one, and RL would then learn noise.
    """
    size, moved = math.hypot(*trained), math.dist(trained, saved)
    if not moved <= TOLERANCE * size:  # also true for NaN
        raise ModelError(
            f"scores of the saved preference model are off by {moved:.3f} from the trained one's, which are of size "
            f"{size:.3f}: its head was lost in saving. Set preference_model.lora_rank=null, or name another "
            "models.preference_model."
        )


def _report(model: PreferenceModel, held_out: Sequence[dict[str, Any]], folder: Path) -> None:
    """Score the held-out pairs and write the three files about them."""
    scores = model.scores([talk for row in held_out for talk in conversations(row)])
    pairs = list(zip(held_out, zip(scores[::2], scores[1::2], strict=True), strict=True))
    report = pm_report([Scored.of(row, pair) for row, pair in pairs])
    lines = [json.dumps({**row, "scores": pair}, ensure_ascii=False) + "\n" for row, pair in pairs]
    for path, text in (
        (folder / layout.HELD_OUT_PAIRS, "".join(lines)),
        (folder / layout.PREFERENCE_MODEL_REPORT, json.dumps(asdict(report), indent=1) + "\n"),
        (folder / layout.WEIGHTS / SPREAD, json.dumps(asdict(report.spread), indent=1) + "\n"),
    ):
        path.write_text(text, encoding="utf-8")
