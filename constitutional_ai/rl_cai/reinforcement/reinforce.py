"""Train RL-CAI from SL-CAI by RL, with the preference model's score as reward (section 4.2; RL-1 to RL-4).

``algorithms.py`` has the algorithms. The KL reference is always the SL-CAI model; under LoRA it is the policy with its
adapter switched off, or replaced by SL-CAI's own adapter (``adapters.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from constitutional_ai.engine.open import open_live_engine
from constitutional_ai.errors import InputError
from constitutional_ai.models.model import STOP_STRINGS, cut_at_stop
from constitutional_ai.models.rendering import uses_plain_format
from constitutional_ai.records import Checkpoint, Conversation, Message, Prompt, as_messages
from constitutional_ai.rl_cai.reinforcement.adapters import SharedBase
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.training.settings import TrainingJob

Reward = Callable[[list[Conversation]], Sequence[float | None]]
"""A function that scores the last answer of each conversation. It returns None if scoring fails, and the answer is then
left out of the update."""
Watch = Callable[[list[Conversation], Sequence[float | None], Sequence[str]], dict[str, float]]
"""A function that returns the figures of a sampled batch, its rewards and its prompts' kinds, for ``metrics.jsonl``."""


def examples(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Return a training row for each prompt."""
    return [{"id": p.id, "source": p.kind, "prompt": as_messages(p.conversation)} for p in prompts]


def reinforce(
    job: TrainingJob[RLTraining],
    *,
    reward: Reward,
    policy: SharedBase | None = None,
    watch: Watch | None = None,
    callbacks: Sequence[Any] = (),
) -> Checkpoint:
    """Train ``job.base``, which is also the KL reference, and save it.

    An incomplete last batch of an epoch is not used; the next epoch has another order. ``policy`` is the base with an
    adapter, which is trained further. ``callbacks`` are those of transformers. Raises InputError if there are fewer
    prompts than one batch takes.
    """
    from datasets import Dataset

    from constitutional_ai.training import launch
    from constitutional_ai.training.callbacks import OrderByEpoch
    from constitutional_ai.training.datasets import load_tokenizer
    from constitutional_ai.training.packing import packs

    settings = job.settings
    if len(job.rows) < settings.prompts_per_batch:
        raise InputError(
            f"{job.folder.name} has {len(job.rows)} prompts, and one step takes {settings.prompts_per_batch}. Lower "
            "rl_cai.batch_size, raise rl_cai.answers, or give it more prompts."
        )
    trainer_type, config_type = settings.method.trainer()
    tokenizer = load_tokenizer(job.base, padding_side="left")
    plain = uses_plain_format(tokenizer)
    load, config = partial(launch.load, job.base, settings), launch.lora(settings, "CAUSAL_LM")
    if policy is None:
        model = load()
        engine = open_live_engine(model) if packs(model.config) else None
    else:
        model, engine = policy
    trainer = trainer_type(
        model=model,
        engine=engine,
        stop=STOP_STRINGS if plain else (),
        reward_funcs=_reward_function(reward, watch, plain),
        args=config_type(**launch.arguments(job) | _arguments(settings)),
        train_dataset=Dataset.from_list(list(job.rows)),
        processing_class=tokenizer,
        peft_config=None if policy else config,
        callbacks=[OrderByEpoch(), *callbacks],
    )
    launch.train(trainer, job)
    return launch.save(launch.whole(trainer, load, config), trainer.processing_class, job)


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
        # Answers cut off at max_tokens are scored like others; the paper is silent. The preference model learned from
        # such answers. Masking them would leave little to learn from if the model rarely ends its answers.
        "mask_truncated_completions": False,
        # Save only after a whole batch of answers is used, because checkpoints do not contain answers still in use.
        "save_steps": -(-settings.checkpoint_steps // passes) * passes,
        **settings.method.arguments,
    }


def _reward_function(reward: Reward, watch: Watch | None, plain: bool) -> Callable[..., Sequence[float | None]]:
    """Return one function for TRL that calls ``reward`` and ``watch``.

    In the plain format both get each answer up to its stop string, as our models return it.
    """

    def score(
        prompts: list[Any],
        completions: list[Any],
        source: list[str],
        log_metric: Callable[[str, float], None],
        **_: Any,
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
        for name, value in (watch(talks, rewards, source) if watch else {}).items():
            log_metric(name, value)
        return rewards

    return score
