"""The last training: RL-CAI, by the preference model, by the feedback model itself, or by DPO (section 4.2; RL)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from constitutional_ai.data.prompts import KINDS, sample_prompts
from constitutional_ai.models.load import model_path
from constitutional_ai.models.model import Model
from constitutional_ai.records import Conversation
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.rl_cai.reinforcement import adapters, dpo, monitor, reinforce
from constitutional_ai.rl_cai.reinforcement.feedback_reward import FeedbackReward
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Trained, digest_of
from constitutional_ai.stages.feedback import helpfulness_digest, labelled_pairs, preference_model_stage
from constitutional_ai.stages.job import Job, sources

STAGE = layout.RL_CAI_MODEL
Scores = Callable[[list[Conversation]], list[float]]


def rl_cai_model(job: Job) -> None:
    """The SL-CAI model, rewarded by the preference model → the RL-CAI model (RL-1 to RL-6)."""
    setting = job.recipe.rl_cai
    directly = setting.algorithm == "dpo"
    judge = ["feedback", "models.feedback"] if setting.reward == "feedback" else []
    if directly:
        inputs = helpfulness_digest(job) | job.made(layout.SL_CAI_MODEL, layout.PREFERENCE_LABELS)
    else:
        prompts = digest_of(p.id for p in job.training_prompts(*KINDS))
        inputs = {"prompts": prompts} | job.made(layout.SL_CAI_MODEL, *preference_model_stage(job))
    job.run.make_model(
        STAGE,
        partial(_by_pairs if directly else _by_reward, job),
        config=job.config("rl_cai", *(["preference_model.helpfulness"] if directly else judge)),
        inputs=inputs,
    )


def _by_reward(job: Job, folder: Path) -> Trained:
    setting = job.recipe.rl_cai
    prompts = sample_prompts(job.training_prompts(*KINDS), setting.prompts, job.recipe.seed)
    rows, notes = job.fitting(STAGE, reinforce.examples(prompts), "rl_cai", free=setting.max_tokens)
    stopper = monitor.stopper(setting.stop_above)
    policy = the_policy(job)
    with rewarding(job, policy) as reward:
        checkpoint = reinforce.reinforce(
            **job.given(folder, rows, "rl_cai") | _base(job),
            policy=policy,
            reward=reward,
            reinforcing=setting.reinforcing,
            watch=partial(monitor.watch, second=second_model(job, policy)),
            callbacks=[stopper, *_snapshots(job, folder)],
        )
    if stopper.reason:
        job.say(f"{STAGE}: stopped early: {stopper.reason}.")
    more = {"sources": dict(sources(rows)), "stopped": stopper.reason, "unscored": _unscored(job, folder)}
    return Trained(checkpoint, len(rows), notes | more)


def _unscored(job: Job, folder: Path) -> float:
    """Share of answers that got no reward, and so taught nothing."""
    lines = (folder / layout.STEPS).read_text(encoding="utf-8").splitlines()
    batches = [
        row["unscored"] for row in map(json.loads, lines) if "unscored" in row
    ]  # not in later passes over one
    share = fmean(batches)
    if share:
        job.say(f"{STAGE}: {share:.1%} of the answers could not be scored, and taught nothing.")
    return share


def _by_pairs(job: Job, folder: Path) -> Trained:
    pairs, unusable = labelled_pairs(job, STAGE)
    rows, notes = job.fitting(STAGE, pairs, "rl_cai")
    given = job.given(folder, rows, "rl_cai") | _base(job)
    checkpoint = dpo.optimise(**given, beta=job.recipe.rl_cai.kl_weight)
    return Trained(checkpoint, len(rows), notes | {"sources": dict(sources(rows)), "unusable": unusable})


def _base(job: Job) -> dict[str, str]:
    return {"base": job.weights(layout.SL_CAI_MODEL), "base_name": layout.SL_CAI}


def _snapshots(job: Job, folder: Path) -> list[Any]:
    setting = job.recipe.rl_cai
    if setting.snapshot_every is None:
        return []
    from constitutional_ai.training.snapshots import Snapshots

    prompts = setting.batch_size // setting.answers
    return [Snapshots(folder, setting.snapshot_every, prompts_per_batch=prompts, passes=setting.passes)]


def the_policy(job: Job) -> Any:
    """SL-CAI's adapter on the pretrained model, which then serves the others too; None where RL starts otherwise."""
    base = model_path(job.recipe.models.pretrained)
    return adapters.policy_on(base, job.run.stage(layout.SL_CAI_MODEL), job.recipe.rl_cai)


@contextmanager
def rewarding(job: Job, policy: Any) -> Iterator[reinforce.Reward]:
    """What RL is rewarded by: the preference model, or the feedback model itself."""
    models = job.recipe.models
    if job.recipe.rl_cai.reward == "preference_model":
        yield _scores(job, policy, job.run.stage(layout.PREFERENCE_MODEL).resolve(), "preference_model")
    elif policy and models.feedback == models.pretrained:
        yield adapters.on_the_base(policy, _rating(job, adapters.base_of(policy, models.pretrained)))
    else:
        with job.loaded(models.feedback) as model:
            yield _rating(job, model)


def second_model(job: Job, policy: Any) -> Scores | None:
    """The score of the preference model that RL never sees, if one was trained."""
    if not job.recipe.preference_model.second or job.recipe.rl_cai.reward == "feedback":
        return None
    return _scores(job, policy, job.run.stage(layout.PREFERENCE_MODEL).resolve() / layout.SECOND, layout.SECOND)


def _scores(job: Job, policy: Any, folder: Path, name: str) -> Scores:
    """Those of a preference model: of its adapter on the policy's base, where it has the same, or of a whole one."""
    models = job.recipe.models
    bare = job.recipe.preference_model.pretraining is None  # else its adapter stands on other weights
    if policy and bare and models.preference_model in (None, models.pretrained) and adapters.adapter_of(folder):
        return adapters.AdapterScores(policy, folder, name).scores
    return PreferenceModel(folder / layout.WEIGHTS).scores


def _rating(job: Job, model: Model) -> FeedbackReward:
    return FeedbackReward(model, job.constitution, job.recipe.feedback, job.recipe.seed)
