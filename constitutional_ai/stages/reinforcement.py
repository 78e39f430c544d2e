"""Train RL-CAI with the preference model, with the feedback model itself, or by DPO (section 4.2; RL)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from constitutional_ai.data.prompts import KINDS
from constitutional_ai.errors import GateClosed
from constitutional_ai.models.load import model_path
from constitutional_ai.models.model import Model
from constitutional_ai.records import Checkpoint, Conversation, PreferenceLabel
from constitutional_ai.rl_cai.feedback.worked_choices import load_few_shots
from constitutional_ai.rl_cai.preference_model import objection_gate, refusal_gate
from constitutional_ai.rl_cai.preference_model.scorer import PreferenceModel
from constitutional_ai.rl_cai.reinforcement import adapters, monitor
from constitutional_ai.rl_cai.reinforcement.dpo import optimise
from constitutional_ai.rl_cai.reinforcement.feedback_reward import FeedbackReward
from constitutional_ai.rl_cai.reinforcement.groupwise_reward import GroupwiseReward
from constitutional_ai.rl_cai.reinforcement.judged_reward import JudgedReward
from constitutional_ai.rl_cai.reinforcement.proposition_reward import PropositionReward
from constitutional_ai.rl_cai.reinforcement.reinforce import Reward, examples, reinforce
from constitutional_ai.rl_cai.reinforcement.rl_prompts import rl_prompts
from constitutional_ai.rl_cai.reinforcement.settings import RLTraining
from constitutional_ai.runs import layout
from constitutional_ai.runs.run import Trained, digest_of
from constitutional_ai.stages.calls import call_others
from constitutional_ai.stages.feedback import dialogues_before, helpful_inputs, labelled_pairs
from constitutional_ai.stages.job import Job, Rows, sources
from constitutional_ai.training import processes
from constitutional_ai.training.settings import TrainingJob

STAGE = layout.RL_CAI_MODEL
Scores = Callable[[list[Conversation]], list[float]]


def rl_cai_model(job: Job) -> None:
    """Train the RL-CAI model, starting from the SL-CAI model (RL-1 to RL-6)."""
    setting = job.recipe.rl_cai
    keys = ["rl_cai"]
    if setting.method.samples:
        prompts = digest_of(p.id for p in job.training_prompts(*KINDS))
        inputs = {"prompts": prompts} | job.outputs(layout.SL_CAI_MODEL, *job.preference_model_stages)
        keys += ["feedback", "models.feedback"] if setting.asks_feedback_model else []
    else:
        inputs = helpful_inputs(job)
        inputs |= job.outputs(*job.in_recipe(layout.SL_CAI_MODEL, layout.PREFERENCE_LABELS))
        keys += ["preference_model.helpfulness"]
    train = _by_reward if setting.method.samples else _by_pairs
    shown = job.few_shots_digest() | dialogues_before(job) if setting.asks_feedback_model else {}
    if setting.reward == "propositions":
        inputs["propositions"] = job.constitution.propositions_digest
    job.make_model(STAGE, partial(train, job), config=job.config(*keys) | shown, inputs=inputs)


def _by_reward(job: Job, folder: Path) -> Trained:
    """Sample answers and learn from their rewards."""
    setting = job.recipe.rl_cai
    prompts = rl_prompts(job.training_prompts(*KINDS), setting.prompts, setting.helpful_share, job.recipe.seed)
    rows, notes = job.usable_rows(STAGE, examples(prompts), "rl_cai", reserve=setting.max_tokens)
    training = _training_job(job, folder, rows)
    stopper = monitor.stopper(setting.stop_above)
    refusals: list[dict[str, Any]] = []
    objections: list[dict[str, Any]] = []

    def begin(reward: Reward) -> None:
        refusals.extend(_check_refusals(job, reward))
        objections.extend(_check_objections(job, reward))
        call_others("rl_cai", job.recipe, job.run.folder, training)

    checkpoint = learn(job, training, stopper, begin)
    if stopper.reason:
        job.notify(f"{STAGE}: stopped early: {stopper.reason}.")
    more = {
        "refusals_preferred": refusals,
        "objections_preferred": objections,
        "sources": dict(sources(rows)),
        "stopped": stopper.reason,
        "unscored": _unscored(job, folder),
    }
    return Trained(checkpoint, len(rows), notes | more)


def learn(
    job: Job, training: TrainingJob[RLTraining], stopper: Any, begin: Callable[[Reward], None]
) -> Checkpoint:
    """Train by sampling, in each of the processes there are. ``begin`` is called when the reward can be asked."""
    policy = load_policy(job)
    with reward_function(job, policy) as reward:
        begin(reward)
        return reinforce(
            training,
            policy=policy,
            reward=reward,
            watch=partial(monitor.watch, second=second_scores(job, policy)),
            callbacks=[stopper, *_snapshots(job, training.folder)],
        )


def join(job: Job, training: TrainingJob[RLTraining]) -> None:
    """Join the training that rank zero has begun, as another process."""
    if training.settings.method.samples:
        learn(job, training, monitor.stopper(training.settings.stop_above), lambda reward: None)
    else:
        optimise(training)


def _check_refusals(job: Job, reward: Reward) -> list[dict[str, Any]]:
    """Ask the reward whether it prefers refusals of harmless prompts; return the shares, for the manifest."""
    shares = refusal_gate.refusals_preferred(reward, refusal_gate.refusal_pairs())
    job.notify(f"gate: the reward prefers a refusal to an answer on {refusal_gate.in_words(shares)}.")
    if refusal_gate.prefers_refusals(shares):
        warning = (
            "RL would teach refusals of harmless prompts: give preference_model.helpfulness more comparisons"
        )
        _shut(job, warning)
    return [asdict(metric) for metric in shares]


def _check_objections(job: Job, reward: Reward) -> list[dict[str, Any]]:
    """Ask a preference model whether it prefers the objections that its labels prefer; return the shares."""
    if not (job.preference_model_stages and job.in_recipe(layout.PREFERENCE_LABELS)):
        return []
    labels = job.run.rows(layout.PREFERENCE_LABELS, PreferenceLabel)
    if not (pairs := objection_gate.objection_pairs(labels, job.recipe.seed)):
        return []
    shares = objection_gate.objections_preferred(reward, pairs)
    spoken = [refusal_gate.in_numbers(share) for share in shares]
    job.notify(
        f"gate: the labels prefer objections in {spoken[0]} of the run's own pairs, the reward in {spoken[1]}."
    )
    if objection_gate.unlearns_objections(shares):
        _shut(
            job,
            "RL would unlearn objections: the preference model has not learned the labels that prefer them. Give it "
            "more pairs of them by comparisons.per_prompt, or fewer against refusals by a lower revisions.harmless",
        )
    return [asdict(metric) for metric in shares]


def _shut(job: Job, warning: str) -> None:
    """Stop the run before RL, or only warn if the recipe says so or the run is a control."""
    if job.recipe.rl_cai.refusal_gate == "stop" and not job.recipe.control:
        raise GateClosed(f"{warning}, or set rl_cai.refusal_gate=warn to continue anyway.")
    job.notify(f"warning: {warning}.")


def _unscored(job: Job, folder: Path) -> float:
    """Return the share of answers that got no reward and were not trained on."""
    steps = map(json.loads, (folder / layout.STEPS).read_text(encoding="utf-8").splitlines())
    share = fmean(
        row["unscored"] for row in steps if "unscored" in row
    )  # only the first pass over a batch has it
    if share:
        job.notify(f"{STAGE}: {share:.1%} of the answers could not be scored, and were not trained on.")
    return share


def _by_pairs(job: Job, folder: Path) -> Trained:
    """Train on the labelled pairs directly (DPO)."""
    pairs, unusable = labelled_pairs(job, STAGE)
    rows, notes = job.usable_rows(STAGE, pairs, "rl_cai")
    training = _training_job(job, folder, rows)
    call_others("rl_cai", job.recipe, job.run.folder, training)
    checkpoint = optimise(training)
    return Trained(checkpoint, len(rows), notes | {"sources": dict(sources(rows)), "unusable": unusable})


def _training_job(job: Job, folder: Path, rows: Rows) -> TrainingJob[RLTraining]:
    """Return the training of RL-CAI, which starts from SL-CAI."""
    training = job.training_job(folder, rows, "rl_cai")
    return replace(training, base=job.weights(layout.SL_CAI_MODEL), base_name=layout.SL_CAI)


def _snapshots(job: Job, folder: Path) -> list[Any]:
    setting = job.recipe.rl_cai
    if setting.snapshot_every is None:
        return []
    from constitutional_ai.training.callbacks import Snapshots

    batch = setting.prompts_per_batch
    return [Snapshots(folder, setting.snapshot_every, prompts_per_batch=batch, passes=setting.passes)]


def load_policy(job: Job) -> adapters.SharedBase | None:
    """Load SL-CAI's adapter on the pretrained model, which other models of the training can then share.

    Returns None if RL does not continue with that adapter.
    """
    if processes.shard_weights():  # no process has whole weights to lend
        return None
    base = model_path(job.recipe.models.pretrained)
    return adapters.policy_on(base, job.run.stage(layout.SL_CAI_MODEL), job.recipe.rl_cai)


@contextmanager
def reward_function(job: Job, policy: adapters.SharedBase | None) -> Iterator[Reward]:
    """Yield the recipe's reward function: the preference model's score, or one by the feedback model."""
    models = job.recipe.models
    if job.recipe.rl_cai.uses_preference_model:
        yield _scores(job, policy, job.run.stage(layout.PREFERENCE_MODEL).resolve(), "preference_model")
    elif policy and models.feedback == models.pretrained:
        yield adapters.on_the_base(
            policy.model, judged_reward(job, adapters.base_of(policy.model, models.pretrained))
        )
    else:
        with job.loaded(models.feedback, STAGE) as model:
            yield judged_reward(job, model)


def second_scores(job: Job, policy: adapters.SharedBase | None) -> Scores | None:
    """Return the scoring function of the preference model that RL never sees; None if there is none."""
    if not (job.recipe.preference_model.second and job.recipe.rl_cai.uses_preference_model):
        return None
    folder = job.run.stage(layout.PREFERENCE_MODEL).resolve() / layout.SECOND
    return _scores(job, policy, folder, layout.SECOND)


def _scores(job: Job, policy: adapters.SharedBase | None, folder: Path, name: str) -> Scores:
    """Return the scoring function of the preference model in ``folder``.

    If it is an adapter of the policy's base, it is put on that base; otherwise the whole model is loaded.
    """
    models = job.recipe.models
    pretrained = job.recipe.preference_model.pretraining is not None  # then its adapter is for other weights
    same_base = models.preference_model in (None, models.pretrained) and not pretrained
    if policy and same_base and adapters.adapter_of(folder):
        return adapters.AdapterScores(policy, folder, name).scores
    return PreferenceModel(folder / layout.WEIGHTS).scores


def judged_reward(job: Job, model: Model) -> JudgedReward:
    """Return the recipe's reward by the feedback model: its rating, its comparisons within a group, or propositions."""
    recipe = job.recipe
    rewards: dict[str, Callable[..., JudgedReward]] = {
        "feedback": FeedbackReward,
        "groupwise": partial(GroupwiseReward, neighbours=recipe.rl_cai.neighbours),
        "propositions": PropositionReward,
    }
    prompts = {prompt.id: prompt for prompt in job.training_prompts(*KINDS)}
    few_shots, make = load_few_shots(job.few_shots), rewards[recipe.rl_cai.reward]
    return make(model, job.constitution, recipe.feedback, recipe.seed, few_shots, prompts)
