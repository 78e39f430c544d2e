"""Finetune the pretrained model into SL-CAI, on revisions and on helpful responses (section 3.2; SL-15 to SL-19).

The loss covers only the answer's tokens (our choice; the paper does not say). Revisions of all rounds are trained on,
not only the last (SL-16).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
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
from constitutional_ai.training.settings import Training, TrainingJob

REVISIONS, HELPFUL = "revisions", "helpful"


def examples(
    chains: Iterable[RevisionChain], helpful: Iterable[Response], rounds: int | None = None
) -> list[dict[str, Any]]:
    """Return rows in TRL's prompt-completion form: every revision without a fault, then every helpful response.

    Revisions of answers to harmless prompts are left out: they are over-refusals (``revisions.harmless``). ``rounds``
    limits the revisions to those of the first rounds (SL-17); None takes all.
    """
    rows = [
        _row(chain.initial.prompt.conversation, revision.revised, f"{chain.id}/r{number}", REVISIONS)
        for chain in chains
        if chain.asks_for_harm
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


def finetune(job: TrainingJob[Training]) -> Checkpoint:
    """Train the pretrained model on ``examples`` and save it."""
    from datasets import Dataset
    from trl import SFTConfig

    from constitutional_ai.training import launch
    from constitutional_ai.training.completion_loss import CompletionLossTrainer
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.packing import packs

    load = partial(launch.load, job.base, job.settings)
    model, config = load(), launch.lora(job.settings, "CAUSAL_LM")
    packed = packs(model.config)
    trainer = CompletionLossTrainer(
        model=model,
        args=SFTConfig(
            **launch.arguments(job),
            max_length=None,  # TRL would cut longer rows; they are already left out
            padding_free=packed,
            # With padding, a batch has texts of similar length; the order of batches is random.
            train_sampling_strategy="random" if packed else "group_by_length",
        ),
        train_dataset=Dataset.from_list(list(job.rows)),
        processing_class=load_tokenizer(job.base),
        peft_config=config,
    )
    launch.train(trainer, job)
    return launch.save(launch.whole(trainer, load, config), trainer.processing_class, job)
