#!/bin/sh
# distilabel 1.5.3, FormatTextGenerationDPO, which makes pairs for DPO out of a prompt's
# generations and an AI judge's ratings, where the judge gave every generation the same rating.
#
# Expected: no pair, an error, or at least two different generations.
# Seen on 2026-11-30: the first generation becomes both "chosen" and "rejected", with equal ratings. The step drops
# nothing and warns of nothing; DPO learns nothing from such a pair, which still counts as one.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check distilabel==1.5.3 datasets==5.2.0 requests==2.34.2
cat > "$folder/try.py" <<'PYTHON'
from distilabel.steps import FormatTextGenerationDPO

step = FormatTextGenerationDPO()
step.load()


def pair(*ratings: int) -> tuple[str, str]:
    row = {
        "instruction": "How do I bake bread?",
        "generations": ["Mix flour and water.", "Buy some.", "No."][: len(ratings)],
        "generation_models": ["judged"] * len(ratings),
        "ratings": list(ratings),
    }
    ((made,),) = step.process([row])
    return made["chosen"][-1]["content"], made["rejected"][-1]["content"]


seen = {ratings: pair(*ratings) for ratings in ((5, 1), (4, 4), (3, 3, 3))}
for ratings, (chosen, rejected) in seen.items():
    print(f"ratings {ratings}: chosen {chosen!r}, rejected {rejected!r}")
as_described = {
    (5, 1): ("Mix flour and water.", "Buy some."),
    (4, 4): ("Mix flour and water.", "Mix flour and water."),
    (3, 3, 3): ("Mix flour and water.", "Mix flour and water."),
}
raise SystemExit(0 if seen == as_described else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
