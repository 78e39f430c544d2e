"""The preference model learns the AI's harmlessness labels and people's helpfulness ones (section 4.2; PM-1 to 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from cai.errors import InputError
from cai.models.batching import Batcher
from cai.records import Checkpoint, Conversation, Message, PreferenceLabel, as_messages, conversation_id
from cai.seeding import seed_of
from cai.training.settings import Training

SCORE_BATCH = 32
BUILT_IN = Path(__file__).parent.parent / "prompts" / "helpfulness_pairs.jsonl"


def examples(labels: Iterable[PreferenceLabel]) -> list[dict[str, Any]]:
    """Rows of AI feedback: answer a, answer b, and P(a is better)."""
    return [
        row(
            x.id,
            x.comparison.prompt.conversation,
            x.comparison.a.text,
            x.comparison.b.text,
            x.probability_a,
            "ai",
        )
        for x in labels
    ]


class _Pair(BaseModel):
    conversation: Conversation = Field(min_length=1)
    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)


def helpfulness_file(name: str) -> Path:
    return BUILT_IN if name == "built-in" else Path(name)


def helpfulness(name: str, limit: int | None, seed: int) -> list[dict[str, Any]]:
    """Rows of people's helpfulness comparisons: hard labels (PM-1). Raises InputError naming the line that is wrong."""
    file, pairs = helpfulness_file(name), []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the helpfulness comparisons in '{file}': {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                pairs.append(_Pair.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                raise InputError(
                    f"{file}:{number}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
                ) from error
    named = [(conversation_id((*p.conversation, Message("assistant", p.chosen))), p) for p in pairs]
    named = sorted(named, key=lambda pair: seed_of(seed, "helpfulness", pair[0]))[:limit]
    return [row(name, p.conversation, p.chosen, p.rejected, 1.0, "people") for name, p in named]


def row(
    name: str, conversation: Conversation, a: str, b: str, probability_a: float, source: str
) -> dict[str, Any]:
    return {
        "id": name,
        "source": source,
        "prompt": as_messages(conversation),
        "chosen": as_messages((Message("assistant", a),)),
        "rejected": as_messages((Message("assistant", b),)),
        "p_chosen": probability_a,
    }


def train(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    folder: Path,
    training: Training,
    seed: int,
    on_step: Any,
) -> Checkpoint:
    """Trains ``base`` with a fresh scalar head on ``rows`` and saves it to ``folder/model``."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig

    from cai.training import launch
    from cai.training.datasets import load_tokenizer
    from cai.training.soft_labels import SoftLabelCollator, SoftLabelTrainer

    tokenizer = load_tokenizer(base)
    columns = ("prompt", "chosen", "rejected", "p_chosen")
    trainer = SoftLabelTrainer(
        model=launch.load(base, training, auto=AutoModelForSequenceClassification, num_labels=1),
        args=RewardConfig(
            **launch.arguments(training, folder, seed=seed),
            max_length=training.max_length,
            train_sampling_strategy="group_by_length",  # least padding; the batches come in random order
        ),
        train_dataset=Dataset.from_list([{k: r[k] for k in columns} | {"length": _length(r)} for r in rows]),
        data_collator=SoftLabelCollator(pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=launch.lora(training, "SEQ_CLS", modules_to_save=["score"]),
    )
    launch.train(trainer, folder, on_step)
    return launch.save(trainer.model, tokenizer, folder, base_model=base_name)


def _length(pair: dict[str, Any]) -> int:
    """Characters of a pair's longer side; the trainer gathers pairs of like length by the column of this name."""
    prompt = sum(len(m["content"]) for m in pair["prompt"])
    return prompt + max(len(pair[side][0]["content"]) for side in ("chosen", "rejected"))


class PreferenceModel:
    """A trained preference model: a score for an answer; the sigmoid of a difference is a probability (PM-4)."""

    def __init__(self, path: str | Path) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from cai.models.hugging_face import best_dtype, defused, device

        self._defused = defused
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="right")
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=best_dtype(), use_safetensors=True
        )
        self._model = model.to(device()).eval()
        self._requests: Batcher[Conversation, float] = Batcher(
            lambda batch, _: self.scores(batch),
            size=SCORE_BATCH,
            key=lambda _: 0,
            length=lambda c: sum(len(m.content) for m in c),
        )

    async def reward(self, conversation: Conversation) -> float:
        """The score of one conversation, computed together with whatever else is asked for now."""
        return await self._requests.ask(conversation)

    def scores(self, conversations: Sequence[Conversation]) -> list[float]:
        """One score for each conversation that ends in the answer to be scored."""
        # The policy's words are hostile here: a turn that it forges would be scored as one.
        texts = [
            self._tokenizer.apply_chat_template(
                [m | {"content": self._defused(m["content"], self._tokenizer)} for m in as_messages(c)],
                tokenize=False,
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
        with torch.inference_mode():
            logits = self._model(**batch.to(self._model.device)).logits
        return [float(x) for x in logits[:, 0].float()]
