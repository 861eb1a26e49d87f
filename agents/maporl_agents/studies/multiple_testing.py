"""Correction of p-values for multiple testing, by Holm's step-down method."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number, so that all judgements together err in 5 %.

    With p_(1) <= ... <= p_(m) (Holm, Scandinavian Journal of Statistics 6, 1979):

        adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j))

    A None was judged without a test, or not decided: it counts in m, and stays None.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        adjusted[index] = highest
    return adjusted
