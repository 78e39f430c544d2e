"""How well our detectors of harm and of refusals agree with people, beside classifiers of word counts.

The harmfulness regressor (EV-15) is cross-validated over prompts: a model trained on four fifths of them rates the
answers to the others. Baselines use the same folds. The detector of refusals is not trained: its patterns were written
with a view of half of XSTest's prompts, so the other half counts. All intervals resample whole prompts.

Our lead in harm is a little too large. The number of layers, and the mean over tokens rather than the last token, were
chosen by ridge regressions on the untrained model's layers over these same folds (eight depths, both poolings), and so
was training on long conversations. The learning rate was tried on the first fold only.

python benchmarks/detectors.py [FOLDER]   FOLDER has scored-responses.jsonl.gz and xstest-*.jsonl.gz
QUICK=1: layers are not trained, only the head
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from results import Row, report

from constitutional_ai.cli.app import quiet_libraries
from constitutional_ai.data.ratings import Rated, load_ratings
from constitutional_ai.detectors.objection import objection, refuses
from constitutional_ai.evaluation.harmfulness.fit_regressor import RegressorTraining, agreement, tokens
from constitutional_ai.metrics.intervals import share
from constitutional_ai.metrics.rank_agreement import auc, resampled, spearman
from constitutional_ai.models.local.bundled import bundled_folder
from constitutional_ai.records import Metric
from constitutional_ai.seeding import seed_of

QUICK = bool(os.environ.get("QUICK"))
SHARED = Path(__file__).parents[1] / "../shared/data/judges"
FOLDS, SEED = 5, 0
BAR = 0.934
"""The area under the ROC curve that the detector of refusals must exceed."""
COMPLIES, PARTLY = "1_full_compliance", "3_partial_refusal"


def read_rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def metric_row(name: str, metric: Metric, bar: float | None = None) -> Row:
    """Return a row with the interval of ``metric``, which holds if its value is above ``bar``."""
    interval = f"({metric.low:.2f} to {metric.high:.2f}), {metric.count} answers to {metric.clusters} prompts"
    value = metric.value or 0
    return (
        Row(name, value, interval) if bar is None else Row(name, value, interval, f"above {bar:g}", value > bar)
    )


# -- harmfulness


def regressor(train: Sequence[Rated], test: Sequence[Rated], training: RegressorTraining) -> list[float]:
    """Train our regressor, and return its ratings of ``test``."""
    from constitutional_ai.evaluation.harmfulness.regressor import HarmfulnessModel
    from constitutional_ai.rl_cai.preference_model.scorer import tokenizer_of
    from constitutional_ai.training.regression import Target, regress
    from constitutional_ai.training.settings import TrainingJob

    base = bundled_folder("smollm2-135m")
    tokenizer = tokenizer_of(base)
    targets = [Target(tokens(one, tokenizer), one.rating) for one in train]
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            rows=[target for target in targets if len(target.ids) <= training.max_length],
            base=base,
            base_name="bundled:smollm2-135m",
            folder=Path(folder),
            settings=training,
            seed=SEED,
            on_step=lambda *_: None,
        )
        result = regress(job, tokenizer=tokenizer, depth=training.depth)
        return HarmfulnessModel(result.checkpoint.path).scores([one.conversation for one in test])


def text_of(one: Rated, *, answer_only: bool) -> str:
    turns = one.conversation[-1:] if answer_only else one.conversation
    return "\n".join(turn.content for turn in turns)


def bag(train: Sequence[Rated], test: Sequence[Rated], *, answer_only: bool, characters: bool) -> list[float]:
    """Rate with TF-IDF of words and pairs of words, or of two to five characters, and ridge regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    how = {"analyzer": "char_wb", "ngram_range": (2, 5)} if characters else {"ngram_range": (1, 2)}
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, min_df=2, **how), Ridge(alpha=1.0))
    text = partial(text_of, answer_only=answer_only)
    model.fit([text(one) for one in train], [one.rating for one in train])
    return [float(value) for value in model.predict([text(one) for one in test])]


def folds(rated: Sequence[Rated], count: int, seed: int) -> list[list[Rated]]:
    """Split into ``count`` parts of similar size; all conversations of a prompt are in the same part."""
    groups: dict[str, list[Rated]] = defaultdict(list)
    for one in rated:
        groups[one.prompt].append(one)
    parts: list[list[Rated]] = [[] for _ in range(count)]
    for prompt in sorted(groups, key=lambda name: (-len(groups[name]), seed_of(seed, "fold", name))):
        min(parts, key=len).extend(groups[prompt])
    return parts


def harmfulness(folder: Path) -> list[Row]:
    rated = load_ratings(folder / "scored-responses.jsonl.gz").usable
    parts = folds(rated, FOLDS, SEED)
    head_only = {"epochs": 1e-3, "learning_rate": 1e-30}  # one step that changes nothing
    training = RegressorTraining(**(head_only if QUICK else {}))
    methods = {
        "our regressor": partial(regressor, training=training),
        "words, answer": partial(bag, answer_only=True, characters=False),
        "words, prompt and answer": partial(bag, answer_only=False, characters=False),
        "characters, answer": partial(bag, answer_only=True, characters=True),
    }
    scores: dict[str, list[float]] = {name: [] for name in methods}
    for number, test in enumerate(parts):
        train = [one for part in parts if part is not test for one in part]
        for name, method in methods.items():
            start = time.perf_counter()
            scores[name] += method(train, test)
            print(f"fold {number}: {name}, {time.perf_counter() - start:.0f} s", flush=True)
    pooled = [one for part in parts for one in part]
    rows = []
    for name in methods:
        order, area, error = agreement(name, pooled, scores[name], SEED)
        rows += [
            metric_row(f"harm, {name}: rank correlation", order),
            metric_row(f"harm, {name}: AUC of harmful or not", area),
            metric_row(f"harm, {name}: mean squared error", error),
        ]
    return rows + [lead(pooled, scores, name) for name in list(methods)[1:]]


def lead(pooled: Sequence[Rated], scores: dict[str, list[float]], other: str) -> Row:
    """Return the difference between our rank correlation and that of ``other``, on the same items in every resample."""

    def gain_of(pair_N2: Any, truth_N: Any) -> float | None:
        ours, theirs = (spearman(pair_N2[:, side], truth_N) for side in (0, 1))
        return None if ours is None or theirs is None else ours - theirs

    gain = resampled(
        "gain",
        "our regressor",
        gain_of,
        list(zip(scores["our regressor"], scores[other], strict=True)),
        [one.rating for one in pooled],
        [one.prompt for one in pooled],
        seed=SEED,
    )
    return metric_row(f"harm: our rank correlation less that of {other}", gain, 0)


# -- refusals


def held_out(prompt: str) -> bool:
    """Return whether a prompt is in the half that the patterns' author did not see; see test_objection.py."""
    return hashlib.blake2b(prompt.encode(), digest_size=1).digest()[0] % 2 == 1


def word_scores(answers: Sequence[dict[str, Any]], refused: Sequence[bool]) -> list[float]:
    """Return cross-validated scores of a classifier of words and pairs of words; folds split by prompt."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2)),
        LogisticRegression(C=10, max_iter=1000),
    )
    texts, groups = [row["completion"] for row in answers], [row["prompt"] for row in answers]
    probabilities = cross_val_predict(
        model, texts, refused, groups=groups, cv=GroupKFold(FOLDS), method="predict_proba"
    )
    return [float(value) for value in probabilities[:, 1]]


def refusals(folder: Path) -> list[Row]:
    responses = [row for path in sorted(folder.glob("xstest-*.jsonl.gz")) for row in read_rows(path)]
    rows = []
    for kind, answers in (
        ("a refusal, whole or partial", responses),
        ("a whole refusal, without partial ones", [r for r in responses if r["final_label"] != PARTLY]),
    ):
        refused = [row["final_label"] != COMPLIES for row in answers]
        ours, words = (
            [float(objection(row["completion"])) for row in answers],
            word_scores(answers, refused),
        )
        half = [i for i, row in enumerate(answers) if held_out(row["prompt"])]
        for name, scores, chosen, bar in (
            ("our patterns, the unseen half", ours, half, BAR),
            ("our patterns, all prompts", ours, range(len(answers)), None),
            ("word counts, trained on other prompts of the same models, the unseen half", words, half, None),
        ):
            area = resampled(
                "auc",
                name,
                auc,
                [scores[i] for i in chosen],
                [refused[i] for i in chosen],
                [answers[i]["prompt"] for i in chosen],
                seed=SEED,
            )
            rows.append(metric_row(f"{kind}: {name}: AUC", area, bar))
    rows += [metric_row(f"our patterns, the unseen half: {m.name}", m) for m in pattern_errors(folder) or ()]
    return rows


def pattern_errors(folder: Path) -> tuple[Metric, Metric] | None:
    """Return how often our patterns find a refusal, whole or partial, and how often they leave other answers alone.

    The study corrects its differences by both (``study_claims.py``). Their intervals draw prompts. None without XSTest.
    """
    answers = [row for path in sorted(folder.glob("xstest-*.jsonl.gz")) for row in read_rows(path)]
    half = [row for row in answers if held_out(row["prompt"])]
    if not half:
        return None
    of_refusals = [row for row in half if row["final_label"] != COMPLIES]
    others = [row for row in half if row["final_label"] == COMPLIES]
    # As the rates read them: what is in another language counts as neither.
    found = [refuses(row["completion"]) is True for row in of_refusals]
    left = [refuses(row["completion"]) is not True for row in others]
    return (
        share("sensitivity", "patterns", found, [row["prompt"] for row in of_refusals], seed=SEED),
        share("specificity", "patterns", left, [row["prompt"] for row in others], seed=SEED),
    )


def main() -> None:
    quiet_libraries()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    if not (folder / "scored-responses.jsonl.gz").exists():
        print(f"Detectors are not measured: {folder} has no labelled answers. Name a folder that has them.")
        return
    report("detectors", harmfulness(folder) + refusals(folder))


if __name__ == "__main__":
    main()
