"""Jobs of studies: their keys, how they are carried out, the pool."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from study_cases import PPO, SMALL, quiet

from maporl_agents.config import CONFIGS, Sampling, TrainConfig
from maporl_agents.studies import jobs
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.job_pool import Pool, last_line
from maporl_agents.studies.jobs import Job, Recipe, all_measures, carry_out, measure_path, missing
from maporl_agents.studies.sft import SFTConfig
from maporl_agents.training.loop import Interrupted

ALONE = Measure("alone")


class TestKey:
    def test_what_decides_the_team_decides_the_key(self) -> None:
        key = Job(PPO, 0, ()).key
        assert re.fullmatch("[0-9a-f]{16}", key)
        assert Job(PPO, 0, (ALONE,)).key == key
        assert (
            Job(Recipe("ppo", replace(SMALL, name="other", checkpoint_every=7)), 0, ()).key == key
        )
        others = [
            Job(PPO, 1, ()),
            Job(Recipe("sft", SMALL), 0, ()),
            Job(Recipe("ppo", replace(SMALL, steps=4)), 0, ()),
            Job(Recipe("ppo", replace(SMALL, game=replace(SMALL.game, gamma=0.5))), 0, ()),
            Job(Recipe("ppo", replace(SMALL, eval=replace(SMALL.eval, questions=7))), 0, ()),
        ]
        assert len({key, *(job.key for job in others)}) == 6

    def test_a_new_setting_at_its_default_changes_no_key(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        @dataclass(frozen=True)
        class Later(TrainConfig):
            extra: int = 0
            more: Sampling = field(default_factory=Sampling)

        def later(**settings: Any) -> str:
            own = {f.name: getattr(SMALL, f.name) for f in fields(SMALL)}
            return Job(Recipe("ppo", Later(**own, **settings)), 0, ()).key

        monkeypatch.setitem(CONFIGS, "maporl", Later)
        keys = {later(extra=1), later(more=Sampling(max_new_tokens=5)), later()}
        assert len(keys) == 3
        assert later(extra=0) in keys
        monkeypatch.undo()
        assert Job(PPO, 0, ()).key in keys

    @pytest.mark.parametrize("config", [cls() for cls in CONFIGS.values()])
    def test_every_change_of_a_setting_is_seen(self, config: Any) -> None:
        """Each value of each group in turn becomes another; no two of the changes are alike."""
        found = [jobs.changes(config, config)]
        assert found == [{}]
        for path in leaves(config):
            changed = with_another(config, path)
            found.append(jobs.changes(changed, config))
            assert list(leaves_of(found[-1])) == [path]
        assert len(found) > 30

    def test_the_same_changes_of_two_schemes_are_two_jobs(self) -> None:
        keys = {Job(Recipe("none", cls()), 0, ()).key for cls in CONFIGS.values()}
        assert len(keys) == len(CONFIGS)

    def test_a_folder_made_with_another_default_is_refused(self, tmp_path: Path) -> None:
        job = Job(PPO, 0, (ALONE,))
        assert missing(job, tmp_path) == (ALONE,)
        (tmp_path / "job.json").write_text(job.to_json())
        assert missing(job, tmp_path) == (ALONE,)
        data = json.loads(job.to_json())
        data["recipe"]["config"]["ppo"]["clip_coef"] = 0.3  # what was the default then
        (tmp_path / "job.json").write_text(json.dumps(data))
        with pytest.raises(ValueError, match="has a default changed"):
            missing(job, tmp_path)

    def test_an_untrained_team_does_not_depend_on_the_training(self) -> None:
        key = Job(Recipe("none", SMALL), 0, ()).key
        longer = replace(SMALL, steps=9, ppo=replace(SMALL.ppo, learning_rate=1.0))
        assert Job(Recipe("none", longer), 0, ()).key == key
        paid = replace(SMALL.game, gamma=0.5, alpha=(1.0, 0.0), share="own")
        assert Job(Recipe("none", replace(SMALL, game=paid)), 0, ()).key == key
        shown = replace(SMALL.game, reward_feedback=True)
        assert Job(Recipe("none", replace(SMALL, game=shown)), 0, ()).key != key
        assert Job(PPO, 0, ()).key != key

    def test_imitation_depends_on_its_own_settings(self) -> None:
        keys = {Job(Recipe("sft", SMALL, SFTConfig(epochs=n)), 0, ()).key for n in (1, 2)}
        assert len(keys) == 2
        assert len({Job(Recipe("ppo", SMALL, SFTConfig(epochs=n)), 0, ()).key for n in (1, 2)}) == 1

    def test_other_weights_under_the_same_name_are_another_job(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"one")
        one = jobs.fingerprint(tmp_path)
        assert jobs.fingerprint(tmp_path) == one
        jobs.fingerprint.cache_clear()
        (tmp_path / "model.safetensors").write_bytes(b"two")
        assert jobs.fingerprint(tmp_path) != one

    def test_seeds_differ_in_training_and_in_the_noise_of_evaluation(self) -> None:
        first, second = (Job(PPO, seed, ()).config for seed in (0, 1))
        assert (first.seed, second.seed) == (0, 1)
        assert first.eval.seed != second.eval.seed
        assert first.eval.questions == second.eval.questions

    def test_a_job_survives_json(self) -> None:
        recipe = Recipe("sft", SMALL, SFTConfig(best_share=0.2))
        job = Job(recipe, 2, (ALONE, Measure(agents=3, task="shopping")))
        assert Job.from_json(job.to_json()) == job

    @pytest.mark.parametrize("text", ["[]", "{}", "3", '{"recipe": 1}', "[" * 100_000, "7" * 5_000])
    def test_what_is_no_job_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"no job of a study|limit"):
            Job.from_json(text)

    def test_jobs_of_one_team_become_one_that_measures_everything(self) -> None:
        jobs = [Job(PPO, 0, (Measure(),)), Job(PPO, 0, (ALONE,)), Job(PPO, 0, (Measure(),))]
        assert all_measures([*jobs, Job(PPO, 1, (ALONE,))]) == [
            Job(PPO, 0, (Measure(), ALONE)),
            Job(PPO, 1, (ALONE,)),
        ]

    def test_unknown_methods_are_refused(self) -> None:
        with pytest.raises(ValueError, match="none, ppo, magrpo, malt, iac, grpo, sft"):
            Recipe("dpo", SMALL)  # type: ignore[arg-type]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the way to every setting, through all groups."""
    for one in fields(value):
        inner, way = getattr(value, one.name), (*path, one.name)
        yield from leaves(inner, way) if is_dataclass(inner) else [way]


def leaves_of(changed: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in changed.items():
        yield from leaves_of(inner, (*path, name)) if isinstance(inner, dict) else [(*path, name)]


def with_another(value: Any, path: tuple[str, ...]) -> Any:
    """Return a copy with another value at the end of a path, unchecked."""
    changed = copy.copy(value)
    old = getattr(value, path[0])
    new = with_another(old, path[1:]) if path[1:] else ("another", old)
    object.__setattr__(changed, path[0], new)
    return changed


class Cutting(io.StringIO):
    """A screen that sends SIGTERM to its own process when a step is shown."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.words = f"step   {step} "

    def write(self, text: str) -> int:
        if self.words in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


class TestCarryOut:
    @pytest.mark.thorough
    def test_a_cut_job_goes_on_where_it_was_and_gives_the_same_figures(
        self, tmp_path: Path
    ) -> None:
        job = Job(PPO, 1, (Measure(), ALONE))
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        carry_out(job, whole, quiet())
        with pytest.raises(Interrupted) as stop:
            carry_out(job, cut, Console(file=Cutting(2), width=100))
        assert stop.value.step == 2
        assert missing(job, cut) == job.measures
        carry_out(job, cut, quiet())
        assert missing(job, cut) == ()
        for what in job.measures:
            one, other = (measure_path(folder, what).read_bytes() for folder in (whole, cut))
            assert one == other

    @pytest.mark.thorough
    def test_what_is_done_is_not_done_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once = Recipe("ppo", replace(SMALL, steps=1))
        carry_out(Job(once, 0, (Measure(),)), tmp_path, quiet())
        before = measure_path(tmp_path, Measure()).stat().st_mtime_ns

        def never(*_args: object, **_options: object) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(jobs.experiment, "run", never)
        monkeypatch.setattr(jobs, "resume", never)
        carry_out(Job(once, 0, (Measure(), ALONE)), tmp_path, quiet())
        assert missing(Job(once, 0, (Measure(), ALONE)), tmp_path) == ()
        assert measure_path(tmp_path, Measure()).stat().st_mtime_ns == before

    def test_the_untrained_team_is_only_measured(self, tmp_path: Path) -> None:
        job = Job(Recipe("none", SMALL), 0, (Measure("best_of_n"),))
        carry_out(job, tmp_path, quiet())
        assert not (tmp_path / "run").exists()
        saved = jobs.read_measure(tmp_path, Measure("best_of_n"))
        assert saved["sampled"]["num_answers"] == 6 * 6  # questions x samples
        assert "greedy" not in saved

    def test_two_processes_do_not_do_the_same_job(self, tmp_path: Path) -> None:
        order = []

        def second() -> None:
            with jobs.only_here(tmp_path):
                order.append("second")

        with jobs.only_here(tmp_path):
            other = threading.Thread(target=second)
            other.start()
            other.join(0.2)
            order.append("first")
        other.join()
        assert order == ["first", "second"]

    def test_costs_add_up(self, tmp_path: Path) -> None:
        assert jobs.cost(tmp_path) == 0.0
        jobs.add_cost(tmp_path, 1.5)
        jobs.add_cost(tmp_path, 2.0)
        assert jobs.cost(tmp_path) == 3.5


WORKER = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
with (folder.parent / "started.txt").open("a") as log:
    log.write(f"{job['seed']}\\n")
if job["seed"] == 1:
    raise ValueError("no such model")
if job["seed"] == 9:
    time.sleep(60)
(folder / "measures").mkdir()
for name in sys.argv[2:]:
    (folder / "measures" / name).write_text("{}")
"""


def fake_worker(folder: Path) -> list[str]:
    """Return a process that fails for seed 1, sleeps for seed 9, and else leaves its file."""
    name = measure_path(folder, ALONE).name
    return [sys.executable, "-c", WORKER, str(folder), name]


class TestPool:
    def jobs(self, *seeds: int) -> list[Job]:
        return [Job(PPO, seed, (ALONE,)) for seed in seeds]

    def test_a_failing_job_is_told_and_the_others_finish(self, tmp_path: Path) -> None:
        jobs = self.jobs(0, 1, 2)
        pool = Pool(tmp_path, 2, fake_worker)
        most = []
        pool.run(jobs, lambda pool: most.append(len(pool.running)))
        assert pool.errors == {jobs[1].key: "ValueError: no such model"}
        assert [missing(job, tmp_path / job.key) for job in jobs] == [(), (ALONE,), ()]
        assert max(most) <= 2

    @pytest.mark.thorough
    def test_a_second_run_starts_only_what_is_missing(self, tmp_path: Path) -> None:
        for _ in range(2):
            Pool(tmp_path, 1, fake_worker).run(self.jobs(0, 1, 2))
        assert (tmp_path / "started.txt").read_text().split() == ["0", "1", "2", "1"]

    def test_ctrl_c_stops_the_processes(self, tmp_path: Path) -> None:
        pool = Pool(tmp_path, 1, fake_worker)
        processes = []

        def interrupt(pool: Pool) -> None:
            processes.extend(one.process for one in pool.running)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pool.run(self.jobs(9), interrupt)
        assert [process.poll() for process in processes] == [-signal.SIGTERM]
        assert pool.running == []

    def test_at_least_one_worker(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            Pool(tmp_path, 0)

    def test_the_last_line_says_what_was_wrong(self, tmp_path: Path) -> None:
        log = tmp_path / "log.txt"
        log.write_text("Traceback\n  File x\nValueError: wrong\n\n")
        assert last_line(log) == "ValueError: wrong"
        log.write_text("\n")
        assert last_line(log) == "it printed nothing"
