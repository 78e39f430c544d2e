"""The preference model: a language model with a scalar head, trained on soft labels (section 4.2; PM-3, PM-4).

Any language model can carry the head, of another family than the policy's too: what is scored is a conversation, and it
is rendered with the preference model's own chat template.
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

from pydantic import TypeAdapter

from constitutional_ai.errors import ModelError
from constitutional_ai.models.batching import Batcher
from constitutional_ai.models.rendering import defused_messages
from constitutional_ai.records import Checkpoint, Conversation, as_messages
from constitutional_ai.rl_cai.preference_model.held_out_report import Scored, Spread, pm_report
from constitutional_ai.rl_cai.preference_model.training_pairs import conversations
from constitutional_ai.runs import layout
from constitutional_ai.training.settings import Training

SCORE_BATCH = 32
CHECKED = 8
"""Training pairs whose scores are compared before and after saving."""
TOLERANCE = 0.25
"""How far they may move, as a share of their size. bfloat16 moves the embedded model's by 0.02 to 0.15; another head
moves them by 0.45 and more."""
SPREAD = "preference_model.json"
UNKNOWN = Spread(None, None, 0, None)


def train(
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
        train_dataset=Dataset.from_list([{k: r[k] for k in columns} | {"length": _length(r)} for r in rows]),
        data_collator=SoftLabelCollator(pad_token_id=tokenizer.pad_token_id, packed=packed),
        processing_class=tokenizer,
        peft_config=launch.lora(training, "SEQ_CLS", modules_to_save=["score"]),
    )
    launch.train(trainer, folder, on_step)
    scores = Scorer(trainer.model.eval(), tokenizer).scores(some)
    return launch.save(trainer.model, tokenizer, folder, base_model=base_name), scores


def _length(pair: dict[str, Any]) -> int:
    """Characters of a pair's longer side; the trainer gathers pairs of like length by the column of this name."""
    prompt = sum(len(m["content"]) for m in pair["prompt"])
    return prompt + max(len(pair[side][0]["content"]) for side in ("chosen", "rejected"))


def tokenizer_of(path: str | Path) -> Any:
    """With a template after whose texts the head reads its last token, not one before it.

    The head reads the last token that is not padding. Where padding and end of turn are one token, and the template
    ends with it, a line break follows (the end-of-context token of PM-3).
    """
    from constitutional_ai.training.datasets import load_tokenizer

    tokenizer = load_tokenizer(path)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    if tokenizer(text, add_special_tokens=False)["input_ids"][-1] == tokenizer.pad_token_id:
        tokenizer.chat_template += "{{ '\\n' }}"
    return tokenizer


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


class Scorer:
    """A model with a scalar head, and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    def scores(self, conversations: Sequence[Conversation]) -> list[float]:
        """One score for each conversation that ends in the answer to be scored."""
        # The policy's words are hostile here: a turn that it forges would be scored as one.
        texts = [
            self._tokenizer.apply_chat_template(
                defused_messages(as_messages(c), self._tokenizer), tokenize=False
            )
            for c in conversations
        ]
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        scores = [0.0] * len(texts)
        for start in range(0, len(texts), SCORE_BATCH):
            batch = by_length[start : start + SCORE_BATCH]
            for i, score in zip(batch, self._scores([texts[i] for i in batch]), strict=True):
                scores[i] = score
        return scores

    def _scores(self, texts: list[str]) -> list[float]:
        import torch

        batch = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            return [float(x) for x in self._read(batch.to(self._model.device))]

    def _read(self, batch: Any) -> Any:
        """Scores of a padded batch of tokens, as a tensor."""
        return self._model(**batch).logits[:, 0].float()


class PreferenceModel(Scorer):
    """A trained preference model: a score for an answer; the sigmoid of a difference is a probability (PM-4).

    Scores of two preference models cannot be compared (PM-6): ``centred`` takes off the mean over held-out answers.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises ModelError when there is no model, or none that gives one score."""
        super().__init__(*_load(path))
        file = Path(path) / SPREAD
        self._spread = TypeAdapter(Spread).validate_json(file.read_bytes()) if file.is_file() else UNKNOWN
        self._requests: Batcher[Conversation, float] = Batcher(
            lambda batch: batch.answer_all(self.scores(batch.requests)),
            size=SCORE_BATCH,
            key=lambda _: 0,
            length=lambda c: sum(len(m.content) for m in c),
        )

    async def reward(self, conversation: Conversation) -> float:
        """The score of one conversation, computed together with whatever else is asked for now."""
        return await self._requests.ask(conversation)

    @property
    def mean(self) -> float | None:
        """Mean score of the held-out answers; None where none were held out."""
        return self._spread.mean

    @property
    def scale(self) -> float | None:
        """Standard deviation of the same scores."""
        return self._spread.scale

    def centred(self, scores: Sequence[float]) -> list[float]:
        """Scores whose zero is the mean held-out answer, to be shown (PM-6). Raises ModelError if it is unknown."""
        if self.mean is None:
            raise ModelError(
                "this preference model held no pairs out, so its scores have no zero. Train one with "
                "preference_model.held_out=0.1"
            )
        return [score - self.mean for score in scores]


def _load(path: str | Path) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    from constitutional_ai import machine
    from constitutional_ai.models.local.tokens import cannot_load

    tokenizer = tokenizer_of(path)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=machine.best_dtype(), use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise cannot_load(str(path), error) from error
    if info["missing_keys"]:  # it would be drawn at random, with no more than a warning
        raise ModelError(
            f"'{path}' is no preference model: it lacks {', '.join(sorted(info['missing_keys']))}. "
            "Name a folder such as runs/mine/06-preference-model/model"
        )
    return model.to(machine.device()).eval(), tokenizer
