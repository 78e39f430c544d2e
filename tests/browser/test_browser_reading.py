"""The page as it is read: without scripts, by its links and choices, on a phone, in the light and in the dark."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import show

SECTIONS = (
    "moved",
    "frontier",
    "pipeline",
    "rates",
    "evaluated",
    "training",
    "gate",
    "audit",
    "feedback",
    "pairs",
)
SECTIONS += ("preference", "samples", "medians", "revisions", "principles", "cost", "provenance")
CONTRAST = """
const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
const behind = e => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c;
    if (c[3] > 0) throw 'a background that one can see through';
  }
  throw 'no background';
};
const found = {};
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length) continue;
  const style = getComputedStyle(e), size = parseFloat(style.fontSize);
  const front = light(parse(e.closest('svg') ? style.fill : style.color)), back = light(behind(e));
  const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const name = (e.closest('svg') ? 'svg ' : '') + e.tagName + '.' + (e.getAttribute('class') || '');
  const spare = ratio / (large ? 3 : 4.5);
  if (!(name in found) || spare < found[name]) found[name] = spare;
}
return found;
"""
MARKS = """
return [...document.querySelectorAll('.frontier svg')].map(svg => [...svg.querySelectorAll('text')].map(text => {
  const box = text.getBoundingClientRect();
  return [text.textContent, box.left, box.top, box.right, box.bottom];
}));
"""


def test_all_of_it_is_read_without_scripts(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        heights = browser.execute_script(
            "return arguments[0].map(id => document.getElementById(id).getBoundingClientRect().height)",
            SECTIONS,
        )
        shown = browser.execute_script("return document.body.innerText")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert min(heights) > 15
    for said in ("Behaviour", "Its biases", "Chosen by rule", "Cost and time"):
        assert said in shown


def test_every_link_leads_to_its_section(browser: Any, page: Path) -> None:
    show(browser, page)
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    links = browser.find_elements("css selector", "nav a")
    assert len(links) == 13
    for link in links:
        name = link.get_attribute("href").rpartition("#")[2]
        browser.execute_script("arguments[0].click()", link)
        top, left = browser.execute_script(
            "return [document.getElementById(arguments[0]).getBoundingClientRect().top, "
            "document.documentElement.scrollHeight - innerHeight - scrollY]",
            name,
        )
        assert abs(top) < 2 or left < 2, name


def test_a_fold_shows_its_conversations_and_the_keyboard_opens_it(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(browser, page)
    for fold in browser.find_elements("css selector", "details.group"):
        samples = fold.find_elements("css selector", ".sample")
        assert samples and not any(sample.is_displayed() for sample in samples)
        fold.find_element("css selector", "summary").send_keys(Keys.ENTER)
        assert all(sample.is_displayed() for sample in samples)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(browser: Any, page: Path, dark: bool) -> None:
    """WCAG 2's level AA: 4.5 to 1, and 3 to 1 for large text. Below 1 here is less than that."""
    show(browser, page, dark=dark)
    found = browser.execute_script(CONTRAST)
    assert {name for name in found if name.startswith("SPAN.chip")} and {
        n for n in found if n.startswith("svg")
    }
    assert {name: round(spare, 2) for name, spare in found.items() if spare < 1} == {}


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Any, page: Path, width: int) -> None:
    show(browser, page, width=width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    over = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide, svg, fieldset') && "
        "e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + '.' + e.className)"
    )
    assert over == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_no_text_of_the_frontier_hides_another(browser: Any, page: Path) -> None:
    show(browser, page)
    charts = browser.execute_script(MARKS)
    assert len(charts) == 2 and all(set("123456") <= {t[0] for t in c} for c in charts)
    for chart in charts:
        for (one, *a), (other, *b) in combinations(chart, 2):
            apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 3 or b[3] <= a[1] + 3
            assert apart, (one, other)
