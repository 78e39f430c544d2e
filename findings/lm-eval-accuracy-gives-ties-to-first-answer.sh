#!/bin/sh
# lm-eval 0.4.13, a multiple-choice task, and a model to which both answers are equally likely (as happens in bfloat16,
# where log-probabilities come in steps, or with a judge that has no preference).
#
# Expected: such a model scores what guessing scores, 0.5 of two answers, or the ties are counted apart.
# Seen on 2026-11-30: a tie goes to the answer that stands first, so `acc` is 1.0 where the right one is always listed
# first (as data sets of pairs with "chosen" and "rejected" easily are) and 0.0 where it is listed second. Nothing in the
# results tells of ties.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check lm-eval==0.4.13 transformers==5.23.0 datasets==5.2.0
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hub"
cat > "$folder/try.py" <<'PYTHON'
import json
from pathlib import Path
from tempfile import mkdtemp

from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask


class Indifferent(LM):
    """Finds every continuation equally likely."""

    def loglikelihood(self, requests):
        return [(-1.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        raise NotImplementedError


def accuracy(gold: int) -> float:
    file = Path(mkdtemp()) / "pairs.jsonl"
    pairs = [{"q": f"Question {n}?", "answers": ["yes", "nope"], "gold": gold} for n in range(20)]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    config = {
        "task": f"gold{gold}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{answers}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc"}],
    }
    found = simple_evaluate(Indifferent(), tasks=[ConfigurableTask(config=config)], bootstrap_iters=0)
    return found["results"][f"gold{gold}"]["acc,none"]


seen = {"right answer first": accuracy(0), "right answer second": accuracy(1)}
print(seen)
raise SystemExit(0 if seen == {"right answer first": 1.0, "right answer second": 0.0} else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
