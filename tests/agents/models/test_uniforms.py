"""Noise of sampling: numbers named by their token, and draws that are never impossible."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maporl_agents.models.uniforms import _possible, draw, uniforms


class TestUniforms:
    def test_a_row_depends_on_its_own_stream_and_a_number_on_its_place(self) -> None:
        table = uniforms([3, 2**63 - 1, 5], 40)
        assert table.shape == (3, 40)
        assert table.dtype == np.float64
        np.testing.assert_array_equal(uniforms([5], 40)[0], table[2])
        np.testing.assert_array_equal(uniforms([5, 3], 7), table[[2, 0], :7])

    def test_numbers_are_uniform_within_rows_and_across_neighbouring_streams(self) -> None:
        table = uniforms(range(400), 400)
        assert 0 <= table.min() < table.max() < 1
        for axis in (0, 1):
            # Means of 400: standard deviation .0144; 400 of them stay within 4.5 of these.
            assert np.abs(table.mean(axis) - 0.5).max() < 0.065
        counts = np.histogram(table, bins=20, range=(0, 1))[0]
        expected = table.size / 20
        assert ((counts - expected) ** 2 / expected).sum() < 43.8  # 19 degrees of freedom: .001
        neighbours = np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]
        assert abs(neighbours) < 0.011  # 4.5 / sqrt(159600)

    def test_no_stream(self) -> None:
        assert uniforms([], 3).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
class TestDraw:
    def test_is_the_inverse_of_the_distribution_function(self, dtype: torch.dtype) -> None:
        """Against a loop over ids that adds up probabilities."""
        generator = torch.Generator().manual_seed(0)
        logits = 3 * torch.randn(50, 37, generator=generator, dtype=dtype)
        logprobs = logits.log_softmax(-1)
        numbers = torch.rand(50, generator=generator, dtype=torch.float64)
        for row, number, found in zip(logprobs, numbers, draw(logprobs, numbers), strict=True):
            total, token = 0.0, -1
            while total <= float(number):
                token += 1
                total += float(row[token].double().exp())
            assert int(found) == token

    @pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53, 1.0])
    def test_never_takes_an_impossible_id(self, dtype: torch.dtype, number: float) -> None:
        """At the beginning, in the middle, at the end, and next to numbers that round to 1."""
        logits = torch.zeros(4, 9, dtype=dtype)
        logits[0, [0, 1, 8]] = -1e30
        logits[1, 1:] = -1e30
        logits[2, :-1] = -1e30
        logits[3, [3, 4, 5, 7, 8]] = -1e30
        logprobs = logits.log_softmax(-1)
        chosen = draw(logprobs, torch.full((4,), number, dtype=torch.float64))
        assert (logprobs.gather(1, chosen[:, None]) > -100).all()
        assert chosen[1:3].tolist() == [0, 8]

    def test_ends_of_the_interval_are_the_first_and_last_possible_ids(
        self, dtype: torch.dtype
    ) -> None:
        logits = torch.tensor([[-1e30, 1.0, 0.0, 2.0, -1e30]], dtype=dtype)
        logprobs = logits.log_softmax(-1)
        ends = [draw(logprobs, torch.tensor([u], dtype=torch.float64)).item() for u in (0.0, 1.0)]
        assert ends == [1, 3]

    def test_an_id_that_parallel_sums_made_possible_is_replaced(self, dtype: torch.dtype) -> None:
        probabilities = torch.tensor([[0.2, 0.8, 0.0]] * 2, dtype=dtype)
        assert _possible(probabilities, torch.tensor([0, 2])).tolist() == [0, 1]

    def test_what_is_no_number_gives_some_id(self, dtype: torch.dtype) -> None:
        """A model whose weights are lost is found out by its losses."""
        assert 0 <= draw(torch.full((1, 5), torch.nan, dtype=dtype), torch.tensor([0.5])) < 5
