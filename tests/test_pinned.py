"""Every package that ``make setup`` installs is pinned by a version, and all but torch by hashes."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
BUILD = {"torch", "triton"}
"""What depends on the accelerator, beside packages of ``nvidia``."""


def pins(name: str) -> dict[str, str]:
    return {canonicalize_name(package): version for package, version in PIN.findall((ROOT / name).read_text())}


def installed(package: str, extras: set[str], seen: dict[str, set[str]]) -> set[str]:
    """Return what a package needs here, and what that needs."""
    name = canonicalize_name(package)
    if name in seen and extras <= seen[name]:
        return set(seen)
    seen[name] = seen.get(name, set()) | extras
    for line in metadata.requires(package) or ():
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in {"", *seen[name]}):
            installed(needed.name, needed.extras, seen)
    return set(seen)


def test_all_that_is_installed_is_pinned() -> None:
    needed = installed("constitutional-ai", {"local", "serve", "dev"}, {}) - {"constitutional-ai"}
    assert {one for one in needed - set(pins("requirements.lock")) - BUILD if "nvidia" not in one} == set()


def test_each_pin_but_torch_has_the_hashes_of_its_files_and_names_no_index() -> None:
    versions, text = pins("requirements.lock"), (ROOT / "requirements-hashed.lock").read_text()
    blocks = [block for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE) if not block.startswith("#")]
    hashed = {canonicalize_name(PIN.match(block)[1]): PIN.match(block)[2] for block in blocks}  # type: ignore[index]
    assert hashed == {name: version for name, version in versions.items() if name != "torch"}
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)
    assert not re.search(r"https?:|--(extra-)?index|--find-links|@", text)
