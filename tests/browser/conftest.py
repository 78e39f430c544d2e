"""Pages in a real browser without a window: skipped where there is none; ``make test-browser`` then fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.evaluation.answers import MedianAnswer
from constitutional_ai.report.page.page import write_report
from constitutional_ai.runs.run import Run
from tests.report.conftest import (
    HOSTILE,
    NO,
    answer,
    begin,
    chain,
    evaluate,
    label,
    make,
    prompt,
    write_evaluation,
    write_rows,
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TAGS = ("weapons", "theft-and-fraud", HOSTILE)
PRINCIPLES = ("be-kind", "no-crime", HOSTILE)


def missing(why: str) -> None:
    """Skips, or fails where a browser was asked for."""
    (pytest.fail if os.environ.get("CAI_BROWSER") else pytest.skip)(why)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("no Chromium with its chromedriver: install them, for example as chromium and chromium-driver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing("no selenium: pip install 'constitutional-ai[browser]'")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    flags = [
        "--headless=new",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ]
    for flag in flags + (["--no-sandbox"] if os.geteuid() == 0 else []):  # root has no sandbox
        options.add_argument(flag)
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run, evaluated, with enough in it to choose from."""
    run = evaluate(make(begin(tmp_path_factory.mktemp("browser") / "run")))
    fill(run)
    return write_report(run)


def fill(run: Run) -> None:
    """Two dozen red-team prompts of three kinds of harm, and three principles."""
    asked = [prompt(f"{HOSTILE} {n}", tags=(TAGS[n % 3],)) for n in range(24)]
    benign = [prompt(f"How do I boil egg {n}?", "borderline" if n % 2 else "helpful") for n in range(12)]
    roles = ("start", "sl-cai", "rl-cai", "rl-cai@00000064", "rl-cai@00000128", HOSTILE)
    long = f"Sure! Here is how. {HOSTILE} and so on, in many other words than these, and of one meaning. " * 12
    made = [
        answer(p, role, NO if (n * 7 + 5 * r) % 11 < 2 * r else long, float(n))
        for r, role in enumerate(roles)
        for n, p in enumerate([*asked, *benign])
    ]
    write_evaluation(run.folder, made)
    names = [PRINCIPLES[n % 3] for n in range(24)]
    labels = [label(p, n / 24, principle=name) for n, (p, name) in enumerate(zip(asked, names, strict=True))]
    write_rows(run.folder / "05-preference-labels/records.jsonl", labels)
    chains = [chain(p, name) for p, name in zip(asked, names, strict=True)]
    write_rows(run.folder / "02-revisions/records.jsonl", chains)
    medians = [
        MedianAnswer(f"{p.id}.{m}", m, HOSTILE, p, f"{p.id}.0.{m}", long, 0.5, 17) for p in asked for m in roles
    ]
    write_rows(run.folder / "evaluation/answers/medians.jsonl", medians)


def show(browser: Any, page: Path, *, width: int = 1280, dark: bool = False, media: str = "") -> None:
    """Opens a page anew, as wide as this, in a dark or light system, on the screen or as if printed."""
    theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [theme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def requested(browser: Any) -> list[str]:
    """Addresses that the browser has asked for since this was last asked."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
