"""Train by direct preference optimisation on the AI's labels, without a preference model or sampling (not the paper's).

Labels stay soft; the reference is the SL-CAI model. People's helpfulness comparisons can be mixed in, as in the
preference model's data.
"""

from __future__ import annotations

from functools import partial

from constitutional_ai.records import Checkpoint
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.training.settings import TrainingJob


def optimise(job: TrainingJob[RLTraining]) -> Checkpoint:
    """Train the base, which is also the reference, on the preference model's rows, and save it.

    β is ``kl_weight``, which holds the policy to the reference.
    """
    from datasets import Dataset

    from constitutional_ai.training import launch
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.soft_labels import SoftDPOCollator

    settings, tokenizer = job.settings, load_tokenizer(job.base)
    load, config = partial(launch.load, job.base, settings), launch.lora(settings, "CAUSAL_LM")
    trainer_type, config_type = settings.method.trainer()
    trainer = trainer_type(
        model=load(),
        args=config_type(
            **launch.arguments(job),
            **settings.method.arguments,
            max_length=settings.max_length,
            beta=settings.kl_weight,
        ),
        train_dataset=Dataset.from_list(list(job.rows)),
        data_collator=SoftDPOCollator(pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=config,
    )
    launch.train(trainer, job)
    return launch.save(launch.whole(trainer, load, config), tokenizer, job)
