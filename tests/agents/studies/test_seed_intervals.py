"""Student's t intervals over seeds, with the working beside each number."""

from __future__ import annotations

import math

import pytest

from maporl_agents.studies.seed_intervals import Estimate, difference, estimate


def test_estimate_by_hand() -> None:
    """Values .1, .2, .3: mean .2, deviation .1, half width 4.3026527 * .1 / sqrt(3)."""
    result = estimate([0.1, 0.2, 0.3])
    assert result.mean == pytest.approx(0.2)
    assert result.half_width == pytest.approx(4.3026527 * 0.1 / math.sqrt(3))
    assert (result.low, result.high) == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
    assert str(result) == "+0.200 ± 0.248"


def test_one_seed_has_no_interval() -> None:
    result = estimate([0.5])
    assert result.half_width is None
    assert (result.low, result.high) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_differences_are_paired_by_seed() -> None:
    """Seeds 1 and 2 are shared: .7 - .5 and .9 - .7, so .2 without any spread."""
    result = difference({1: 0.7, 2: 0.9, 3: 0.0}, {2: 0.7, 1: 0.5, 4: 1.0})
    assert result.values == pytest.approx((0.2, 0.2))
    assert result.half_width == pytest.approx(0)
    with pytest.raises(ValueError, match="no seed in common"):
        difference({1: 0.7}, {2: 0.7})


def test_p_values_are_those_of_student() -> None:
    """An interval that ends at 0 has p = .05; of three values -1, 0, 4: t = .65, p = .58."""
    edge = Estimate(0.3, 0.3, (0.0, 0.0, 0.0))
    assert edge.p_value() == pytest.approx(0.05)
    assert edge.p_value(against=0.3) == 1
    assert estimate([-1.0, 0.0, 4.0]).p_value() == pytest.approx(0.5799, abs=1e-4)
    assert estimate([0.2]).p_value() is None
    assert estimate([0.2, 0.2, 0.2]).p_value() is None, "seeds of greedy decoding may be one"
    assert Estimate(0.2, 0.1, (0.2,)).p_value() is None, "an interval over questions, one run"
