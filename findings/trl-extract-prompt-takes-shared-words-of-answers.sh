#!/bin/sh
# TRL 1.16.0, preference data as plain text whose prompt is implicit, as hh-rlhf has it: "chosen" and "rejected" each hold
# the whole dialogue, and TRL finds the prompt as what both begin with (trl.extract_prompt, which DPO and other trainers
# call for such rows).
#
# Expected: the prompt ends where the last "Assistant:" ends, and the completions are the two answers.
# Seen on 2026-11-30: the comparison goes letter by letter. Answers that begin with the same words lose them to the
# prompt, in the middle of a word too: of "I can help" and "I cannot help" only " help" and "not help" are trained on. Of
# an answer that is the beginning of the other ("No" and "No, never"), all but its last letter counts as prompt. So what
# a pair is trained on depends on how alike its answers begin; only data with an explicit prompt is safe.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check trl==1.16.0 transformers==5.23.0 datasets==5.2.0
cat > "$folder/try.py" <<'PYTHON'
from trl import extract_prompt

ASKED = "\n\nHuman: Can you?\n\nAssistant:"


def split(chosen: str, rejected: str) -> tuple[str, str, str]:
    row = extract_prompt({"chosen": ASKED + chosen, "rejected": ASKED + rejected})
    return row["prompt"].removeprefix(ASKED), row["chosen"], row["rejected"]


seen = {
    "unlike": split(" Sure.", " Never."),
    "alike": split(" I can help", " I cannot help"),
    "beginning": split(" No", " No, never"),
}
for name, parts in seen.items():
    print(f"{name}: beyond the question the prompt has {parts[0]!r}; chosen {parts[1]!r}, rejected {parts[2]!r}")
as_described = {
    "unlike": ("", " Sure.", " Never."),
    "alike": (" I can", " help", "not help"),
    "beginning": (" N", "o", "o, never"),
}
raise SystemExit(0 if seen == as_described else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
