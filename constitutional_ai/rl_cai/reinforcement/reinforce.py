"""RL-CAI: reinforce the SL-CAI model with the preference model's score as reward (section 4.2; RL-1 to RL-4).

``algorithms.py`` has the algorithms. The reference of the KL divergence is always the SL-CAI model; under LoRA it is
the policy with its adapter switched off, or with SL-CAI's own adapter in its place (``adapters.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from constitutional_ai.errors import InputError
from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop
from constitutional_ai.models.rendering import uses_plain_format
from constitutional_ai.records import Checkpoint, Conversation, Message, Prompt, as_messages
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.training.training_job import TrainingJob

Reward = Callable[[list[Conversation]], Sequence[float | None]]
"""Returns a number for each conversation, which ends in the answer to be scored; None where scoring fails: such an
answer teaches nothing."""
Watch = Callable[[list[Conversation], Sequence[float | None]], dict[str, float]]
"""Called with each sampled batch and its rewards; returns figures for ``metrics.jsonl``."""


def examples(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Return rows with the prompts to sample answers to."""
    return [{"id": p.id, "source": p.kind, "prompt": as_messages(p.conversation)} for p in prompts]


def reinforce(
    job: TrainingJob[RLTraining],
    *,
    reward: Reward,
    policy: Any = None,
    watch: Watch | None = None,
    callbacks: Sequence[Any] = (),
) -> Checkpoint:
    """Train ``job.base``, which is also the KL reference, and save it.

    Prompts beyond the last whole batch of an epoch are not used in it; the next epoch has another order. ``policy`` is
    the base with an adapter that is trained further. ``callbacks`` are those of transformers. Raises InputError when
    there are fewer prompts than one batch takes.
    """
    from datasets import Dataset

    from constitutional_ai.training import launch
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.epoch_order import OrderByEpoch
    from constitutional_ai.training.stop_strings import end_at_stop_strings

    settings = job.settings
    if len(job.rows) < settings.prompts_per_batch:
        raise InputError(
            f"{job.folder.name} has {len(job.rows)} prompts, and one step takes {settings.prompts_per_batch}. Lower "
            "rl_cai.batch_size, raise rl_cai.answers, or give it more prompts."
        )
    trainer_type, config_type = settings.method.trainer()
    tokenizer = load_tokenizer(job.base, padding_side="left")
    plain = uses_plain_format(tokenizer)
    trainer = trainer_type(
        model=policy or launch.load(job.base, settings),
        reward_funcs=_reward_function(reward, watch, plain),
        args=config_type(**launch.arguments(job) | _arguments(settings)),
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in job.rows]),
        processing_class=tokenizer,
        peft_config=None if policy else launch.lora(settings, "CAUSAL_LM"),
        callbacks=[OrderByEpoch(), *callbacks],
    )
    if plain:
        end_at_stop_strings(trainer, tokenizer)
    launch.train(trainer, job)
    return launch.save(trainer.model, trainer.processing_class, job)


def _arguments(settings: RLTraining) -> dict[str, Any]:
    """Return the arguments of the config class that only sampling trainers have."""
    passes = settings.passes
    return {
        "beta": settings.kl_weight,  # GRPO's default is 0, which means no reference at all
        "num_generations": settings.answers,
        "num_iterations": passes,
        "epsilon": settings.clip,
        "temperature": settings.temperature,
        "max_completion_length": settings.max_tokens,
        # Answers cut off at max_tokens are scored as if they had ended; the paper does not say. The preference model
        # learned from such answers, so it can score them, and masking would teach nothing to a model that rarely ends.
        "mask_truncated_completions": False,
        # Save only when a batch of answers is used up: a checkpoint does not hold those still in use.
        "save_steps": -(-settings.checkpoint_steps // passes) * passes,
        **settings.method.arguments,
    }


def _reward_function(reward: Reward, watch: Watch | None, plain: bool) -> Callable[..., Sequence[float | None]]:
    """Return ``reward`` and ``watch`` as one function that TRL calls.

    In the plain format both see each answer up to its stop string, as every model here returns it.
    """

    def score(
        prompts: list[Any], completions: list[Any], log_metric: Callable[[str, float], None], **_: Any
    ) -> Sequence[float | None]:
        talks = [
            tuple(Message(m["role"], m["content"]) for m in prompt + completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        if plain:
            cuts = [cut_at_stop(answer.content, STOP_STRINGS) for *_, answer in talks]
            talks = [
                (*talk, replace(answer, content=text.strip()))
                for (*talk, answer), (text, _) in zip(talks, cuts, strict=True)
            ]
            log_metric("at_stop_string", sum(stopped for _, stopped in cuts) / len(cuts))
        rewards = reward(talks)
        log_metric("unscored", rewards.count(None) / len(rewards))
        for name, value in (watch(talks, rewards) if watch else {}).items():
            log_metric(name, value)
        return rewards

    return score
