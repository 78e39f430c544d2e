"""A server that meets a third of all requests with faults; ``make torture`` does the same with 10,000 calls."""

from __future__ import annotations

import pytest

from benchmarks.torture_servers import Outcome, torture
from constitutional_ai.models.hosted import addresses
from tests.faulty_server import FAULTS

WITHOUT_WAITS = [fault for fault in FAULTS if fault not in ("hang", "drip", "wait")]
"""Faults that cost no time by themselves; the others are in ``test_outages.py`` and ``test_refusals.py``."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "BACKOFF_SECONDS", 0.01)
        folder = tmp_path_factory.mktemp("torture")
        return torture(folder, calls=300, share=0.3, concurrency=32, faults=WITHOUT_WAITS)


def test_every_record_is_made_or_failed_with_its_reason(outcome: Outcome) -> None:
    assert outcome.made + outcome.failed == outcome.items
    assert outcome.made > 0.9 * outcome.items
    assert all(reason for reason in outcome.reasons)


def test_no_label_is_wrong_and_no_text_is_anothers(outcome: Outcome) -> None:
    assert outcome.wrong == []


def test_every_kind_of_fault_was_met_and_the_rest_was_asked_once(outcome: Outcome) -> None:
    assert set(outcome.met) == set(WITHOUT_WAITS)
    assert outcome.repeated == 0
