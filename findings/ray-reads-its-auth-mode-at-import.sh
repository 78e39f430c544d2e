#!/bin/sh
# ray 2.60.0, a local cluster that answers only who has its token: RAY_AUTH_MODE=token, set in a program before ray.init().
#
# Expected: ray.init() starts a cluster and talks to it with the token that it has made, whenever the variable was set
# before; or it says that it came too late.
# Seen on 2026-12-01: the cluster's processes read the variable when they are started, the program's own half when ray is
# imported. Set in between, the cluster asks for a token and the program sends none: "InvalidAuthToken" once a second, and
# after half a minute ray.init() fails as if nothing had been started. Set before the import it works.
#
# Prints what it sees; exits 1 when the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
export HOME="$folder" RAY_USAGE_STATS_ENABLED=0  # the token is kept at home
cat > "$folder/try.py" <<'PYTHON'
import os
import sys

if sys.argv[1] == "before":
    os.environ["RAY_AUTH_MODE"] = "token"
import ray

os.environ["RAY_AUTH_MODE"] = "token"
try:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.shutdown()
    print("starts")
except Exception as error:
    print(type(error).__name__)
PYTHON
before=$("$folder/env/bin/python" "$folder/try.py" before 2> /dev/null)
after=$("$folder/env/bin/python" "$folder/try.py" after 2> "$folder/log") || true
echo "set before the import: $before"
echo "set after the import: $after, $(grep -c InvalidAuthToken "$folder/log") times InvalidAuthToken"
[ "$before" = starts ] && [ "$after" != starts ] && grep -q InvalidAuthToken "$folder/log" && echo "as described" || {
    echo "CHANGED"
    exit 1
}
