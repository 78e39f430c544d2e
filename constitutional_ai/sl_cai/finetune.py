"""SL-CAI: the pretrained model finetuned on revisions and on sampled helpful answers (section 3.2; SL-15 to SL-19).

Loss on the answer only; the paper does not say. All rounds' revisions are trained on, not only the last (SL-16).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.records import (
    Checkpoint,
    Completion,
    Conversation,
    Message,
    Response,
    RevisionChain,
    as_messages,
)
from constitutional_ai.training.settings import Training

REVISIONS, HELPFUL = "revisions", "helpful"


def examples(
    chains: Iterable[RevisionChain], helpful: Iterable[Response], rounds: int | None = None
) -> list[dict[str, Any]]:
    """Rows in TRL's prompt-completion form: every revision without a fault, then every helpful answer.

    ``rounds`` takes the revisions of the first so many rounds only (SL-17); None takes all.
    """
    rows = [
        _row(chain.initial.prompt.conversation, revision.revised, f"{chain.id}/r{number}", REVISIONS)
        for chain in chains
        for number, revision in enumerate(chain.revisions[:rounds], start=1)
        if revision.fault is None
    ]
    return rows + [_row(r.prompt.conversation, r.completion, r.id, HELPFUL) for r in helpful]


def _row(conversation: Conversation, answer: Completion, name: str, source: str) -> dict[str, Any]:
    return {
        "id": name,
        "source": source,
        "prompt": as_messages(conversation),
        "completion": as_messages((Message("assistant", answer.text),)),
    }


def finetune(
    rows: list[dict[str, Any]],
    *,
    base: str | Path,
    base_name: str,
    folder: Path,
    training: Training,
    seed: int,
    on_step: Any,
    report_to: Sequence[str] = (),
) -> Checkpoint:
    """Trains ``base`` on ``rows`` and saves it to ``folder/model``."""
    from datasets import Dataset
    from trl import SFTConfig

    from constitutional_ai.training import launch
    from constitutional_ai.training.completion_loss import CompletionLossTrainer
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.packing import packs

    model = launch.load(base, training)
    packed = packs(model.config)
    trainer = CompletionLossTrainer(
        model=model,
        args=SFTConfig(
            **launch.arguments(training, folder, seed=seed, report_to=report_to),
            max_length=None,  # what is too long was left out, and counted: TRL would cut it
            padding_free=packed,
            # Padded, texts of like length go together; the batches come in random order.
            train_sampling_strategy="random" if packed else "group_by_length",
        ),
        train_dataset=Dataset.from_list([{k: row[k] for k in ("prompt", "completion")} for row in rows]),
        processing_class=load_tokenizer(base),
        peft_config=launch.lora(training, "CAUSAL_LM"),
    )
    launch.train(trainer, folder, on_step)
    return launch.save(trainer.model, trainer.processing_class, folder, base_model=base_name)
