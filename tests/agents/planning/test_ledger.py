"""The ledger counts tensors, and the machine is measured."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plan_cases import MACHINE
from torch.nn import functional

from maporl_agents.planning.ledger import Cost, Ledger, sketching
from maporl_agents.planning.machine import GIB, cgroup_rooms, free_bytes, this_machine
from maporl_agents.update.read_out import BLOCK, _LogProbs


class TestLedger:
    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_counts_bytes_products_and_operators(self, device: str) -> None:
        weight = torch.zeros(100, 100, device=device, requires_grad=True)
        with Ledger([weight]) as ledger:
            x = torch.zeros(50, 100, device=device)  # 20,000 bytes
            y = (x @ weight).tanh()  # the product, another 20,000, dies when tanh is done
            assert (ledger.live_bytes, ledger.peak_bytes) == (40_000, 60_000)
            assert ledger.flops == 2 * 50 * 100 * 100
            y.sum().backward()  # one more product, for the weight's gradient
            assert ledger.flops == 2 * 2 * 50 * 100 * 100
            del x, y
        assert ledger.live_bytes == 40_000  # the gradient

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_inference_mode_hides_nothing(self, device: str) -> None:
        x, weight = (torch.zeros(8, 8, device=device) for _ in range(2))
        with torch.inference_mode(), Ledger([x, weight]) as ledger:
            functional.linear(x, weight)
        assert (ledger.flops, ledger.peak_bytes) == (2 * 8 * 8 * 8, 8 * 8 * 4)

    @pytest.mark.parametrize("device", ["cpu", "meta"])
    def test_a_plan_makes_probabilities_in_blocks_as_a_run_does(self, device: str) -> None:
        """Else a plan counts the logits of many words once more."""
        rows, words = 32, BLOCK // 8  # eight rows in a block
        logits = torch.zeros(rows, words, device=device, requires_grad=True)
        with Ledger([logits]) as ledger:
            of_ids, _ = _LogProbs.apply(logits, logits.new_zeros(rows, dtype=torch.long), True)
            of_ids.sum().backward()
        assert ledger.peak_bytes < 4 * (rows * words + 2.01 * BLOCK)  # kept, and two blocks

    def test_a_sketch_of_attention_keeps_what_the_real_kernel_keeps(self) -> None:
        """Forward and backward, causal: query, key, value are given; the result and sums kept."""
        costs = {}
        for device in ("cpu", "meta"):
            given = [torch.zeros(2, 4, 64, 16, device=device, requires_grad=True) for _ in "qkv"]
            with sketching(Ledger(given)) as ledger:
                out = functional.scaled_dot_product_attention(*given, is_causal=True)
                kept = ledger.live_bytes
                out.sum().backward()
            costs[device] = (kept, ledger.live_bytes)
        assert costs["meta"] == costs["cpu"]
        # The result, 2 x 4 x 64 x 16 numbers, and a number for each of the 2 x 4 x 64 queries.
        assert costs["meta"][0] == 4 * (2 * 4 * 64 * 16 + 2 * 4 * 64)

    def test_sketching_gives_attention_back(self) -> None:
        before = functional.scaled_dot_product_attention
        with pytest.raises(RuntimeError, match="inside"), sketching(Ledger()):
            raise RuntimeError("inside")
        assert functional.scaled_dot_product_attention is before

    def test_costs_add_up_and_peaks_do_not(self) -> None:
        whole = Cost(1, 2, 3, 40).then(Cost(10, 20, 30, 4)).times(2)
        assert whole == Cost(22, 44, 66, 40)


class TestMachine:
    def test_is_bound_by_arithmetic_by_memory_or_by_calls(self) -> None:
        assert MACHINE.seconds(Cost(flops=2e11)) == 2
        assert MACHINE.seconds(Cost(flops=2e11, moved_bytes=3e10, ops=1e5)) == 3 + 1
        gpu = replace(MACHINE, overlaps=True)
        assert gpu.seconds(Cost(flops=2e11, moved_bytes=3e10, ops=1e5)) == 3

    def test_measures_this_one(self) -> None:
        here = this_machine(torch.device("cpu"), torch.float32)
        assert here.memory_bytes > GIB / 8
        assert 1e8 < here.flops < 1e14
        assert 1e8 < here.bytes_per_second < 1e13
        assert 1e-7 < here.op_seconds < 1e-2

    def test_memory_is_what_is_free_under_every_limit(self, tmp_path: Path) -> None:
        """Of the machine, of the container, and of the group around it."""
        job = tmp_path / "slice" / "job"
        job.mkdir(parents=True)
        for folder, limit, used in ((job, "max", 0), (job.parent, 9 * GIB, 5 * GIB)):
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used}\n")
            (folder / "memory.stat").write_text(f"anon 7\ninactive_file {GIB}\n")
        assert list(cgroup_rooms("0::/slice/job\n", tmp_path)) == [9 * GIB - 5 * GIB + GIB]

        old = tmp_path / "memory" / "box"
        old.mkdir(parents=True)
        (old / "memory.limit_in_bytes").write_text(f"{2 * GIB}")
        (old / "memory.usage_in_bytes").write_text(f"{GIB}")
        (old / "memory.stat").write_text("total_inactive_file 5\n")
        lines = "12:cpu,cpuacct:/box\n5:memory:/box\n0::/\n"
        assert list(cgroup_rooms(lines, tmp_path)) == [GIB + 5]
        assert list(cgroup_rooms("0::/not/shown/here\n", tmp_path)) == []

    def test_what_another_fills_is_not_free(self) -> None:
        pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert 0 < free_bytes(torch.device("cpu")) < pages

    def test_gpus_lend_what_is_free_and_all_of_them_where_layers_are_spread(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = [3 * GIB, 5 * GIB]
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda at: (free[getattr(at, "index", at)], 8 * GIB)
        )
        assert free_bytes(torch.device("cuda", 1)) == 5 * GIB
        assert free_bytes(torch.device("cuda", 0), spread=True) == 8 * GIB
