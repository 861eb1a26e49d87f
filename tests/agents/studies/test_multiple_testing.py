"""Holm's correction for multiple testing, by hand."""

from __future__ import annotations

import pytest

from maporl_agents.studies.multiple_testing import holm


def test_holm_by_hand() -> None:
    """Four tests: .01 * 4, .02 * 3, .03 * 2, .04 * 1; none below one that is smaller."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.3, 0.5]) == [0.6, 0.6]
    assert holm([0.4, 0.9]) == [0.8, 0.9]
    assert holm([]) == []


def test_a_claim_without_a_test_counts_and_has_none() -> None:
    assert holm([None, 0.01, None]) == [None, 0.03, None]
