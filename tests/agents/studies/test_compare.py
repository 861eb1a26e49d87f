"""Studies: jobs are named by their settings, run once, resume, and fail alone."""

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

from maporl_agents import cli
from maporl_agents.config import CONFIGS, EvalConfig, Sampling, TrainConfig
from maporl_agents.measure.debate_stats import Transition, TurnStats
from maporl_agents.records import run_folder
from maporl_agents.studies import catalogue, jobs
from maporl_agents.studies.arms import with_controls
from maporl_agents.studies.carry_out import assemble
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.incentives import (
    CASES,
    Case,
    flip_rates,
    incentive_verdicts,
    learns,
    paid_topic,
    paid_verdict,
)
from maporl_agents.studies.jobs import Job, Recipe, all_measures, carry_out, measure_path, missing
from maporl_agents.studies.page import claims_page, study_page, summary
from maporl_agents.studies.plan import ArmPlan, StudyPlan, expected_minutes
from maporl_agents.studies.pool import Pool, last_line
from maporl_agents.studies.printed import COLUMNS, printed_results, rows, sentences
from maporl_agents.studies.results import Arm, Claim, Measurement, SeedResult, Study
from maporl_agents.studies.sft import SFTConfig
from maporl_agents.studies.verdicts import estimate
from maporl_agents.training.loop import Interrupted

SMALL = TrainConfig(
    steps=3,
    questions_per_step=3,
    checkpoint_every=1,
    sampling=Sampling(max_new_tokens=4),
    eval=EvalConfig(questions=6),
)
PPO = Recipe("ppo", SMALL)
ALONE = Measure("alone")


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


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
        with pytest.raises(ValueError, match="none, ppo, magrpo, malt, iac, sft"):
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

    def test_what_is_done_is_not_done_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once = Recipe("ppo", replace(SMALL, steps=1))
        carry_out(Job(once, 0, (Measure(),)), tmp_path, quiet())
        before = measure_path(tmp_path, Measure()).stat().st_mtime_ns

        def never(*_args: object, **_options: object) -> None:
            raise AssertionError("trained again")

        monkeypatch.setattr(jobs.experiment, "run", never)
        monkeypatch.setattr(jobs.experiment, "resume", never)
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


PLAN = StudyPlan(
    name="small",
    title="A small study",
    claim="It runs.",
    arms=with_controls(
        ArmPlan("maporl", "MAPoRL", "method", PPO),
        {"alone": "trained, alone"},
        before={"best_of_n": "untrained, best of 6"},
    ),
    notes=("A note.",),
)


COMMITS = ", ".join(12 * digit for digit in "abc")


class TestAssemble:
    def test_a_study_from_its_jobs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_folder, "_commit", lambda: "c0ffee")
        jobs = PLAN.jobs((0,))
        assert [(job.recipe.method, len(job.measures)) for job in jobs] == [("none", 2), ("ppo", 2)]
        for job in jobs:
            carry_out(job, tmp_path / job.key, quiet())
        errors = {PLAN.jobs((1,))[1].key: "ValueError: out of luck"}
        study = assemble(PLAN, (0, 1), tmp_path, command="maporl compare small", errors=errors)
        study.save(tmp_path / "study.json")
        assert Study.load(tmp_path / "study.json") == study

        [method, alone, best] = study.arms
        [result] = method.seeds  # seed 1 was not carried out
        assert (result.train_answers, len(result.curve)) == (3 * 3 * 6, 3)
        assert [(m.stage, m.decoding) for m in result.measurements] == [
            ("before", "sampled"),
            ("before", "greedy"),
            ("after", "sampled"),
            ("after", "greedy"),
        ]
        assert [m.num_answers for m in result.measurements] == [36] * 4
        assert sum(t.count for t in result.measurements[0].transitions) == 24  # 2 steps x 12
        assert (alone.control, alone.of, best.control) == ("alone", "maporl", "best_of_n")
        assert study.notes[0] == "A note."
        assert "out of luck" in study.notes[1]
        assert "seed 1" in study.notes[1]
        now = run_folder.versions()
        assert study.versions["packages"]["torch"] == now["packages"]["torch"]
        assert study.versions["commits"] == ["c0ffee"]
        assert study.machine == {"platform": now["platform"], "cpu_count": str(now["cpu_count"])}

    def test_jobs_of_several_commits_are_told(self, tmp_path: Path) -> None:
        """Trained by one commit, measured by two others; another job by the first alone."""
        one, other = (tmp_path / job.key for job in PLAN.jobs((0,)))
        record = {"python": "3.12", "packages": {"torch": "1", "peft": None}, "cpu_count": 2}
        record["platform"] = "P"
        for folder, commits in ((one, "abc"), (other, "a")):
            (folder / "run").mkdir(parents=True)
            first, *more = [{**record, "commit": commit * 40} for commit in commits]
            (folder / "run" / "versions.json").write_text(json.dumps(first))
            (folder / "versions.json").write_text(json.dumps(more))
        study = assemble(PLAN, (0,), tmp_path, command="", errors={})
        assert study.versions == {
            "python": "3.12",
            "packages": {"torch": "1"},
            "commits": ["a" * 40, "b" * 40, "c" * 40],
        }
        assert study.notes == ("A note.", f"Its jobs were made at 3 commits: {COMMITS}.")

    def test_versions_are_noted_once_each(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for commit in ("a", "a", "b", "a"):
            monkeypatch.setattr(jobs, "versions", lambda commit=commit: {"commit": commit})
            jobs.record_versions(tmp_path)
        assert jobs.ran_on(tmp_path) == [{"commit": "a"}, {"commit": "b"}]

    def test_arms_without_any_seed_stay_empty(self, tmp_path: Path) -> None:
        study = assemble(PLAN, (0,), tmp_path, command="", errors={})
        assert all(arm.seeds == () for arm in study.arms)
        assert rows(study)[0][2:] == ("-",) * (len(COLUMNS) - 2)


def measurement(stage: str, decoding: str, *votes: float) -> Measurement:
    turns = tuple(TurnStats((v,), v, 0.0, 0.0, 0.0, 0.0, 0.0) for v in votes)
    return Measurement(stage, decoding, turns, 10, 60, 1200)  # type: ignore[arg-type]


def printed_page(study: Study) -> str:
    [printed] = printed_results([study]).studies
    return study_page(printed, "results.md")


class TestPage:
    def study(self) -> Study:
        seeds = tuple(
            SeedResult(
                seed,
                (
                    measurement("before", "sampled", 0.3, 0.2),
                    measurement("after", "sampled", 0.3, last),
                    measurement("after", "greedy", 0.3, 0.9),
                ),
                train_answers=19200,
                train_tokens=380_000,
            )
            for seed, last in ((0, 0.7), (1, 0.8))
        )
        return Study(
            "s",
            "Title",
            "Claim.",
            "maporl compare s",
            "2026-01-02T03:04:05",
            (Arm("maporl", "MAPoRL | ours", "method", seeds),),
            notes=("Read this.",),
            budget={"seeds": [0, 1], "core-minutes": 4.5},
        )

    def test_a_row_holds_means_and_intervals_over_seeds(self) -> None:
        # t quantile .975 with 1 degree of freedom 12.706, sd .0707, n 2: 12.706 * .05 = .635
        assert rows(self.study()) == [
            (
                "MAPoRL | ours",
                "method",
                ".300 .200",
                ".300 .750",
                "0.750 ± 0.635",
                ".300 .900 ± 0.000",
                "6.0",
                "120",
                "19.2k answers, 380k tokens",
            )
        ]

    def test_the_page_says_everything_and_escapes_bars(self) -> None:
        text = printed_page(self.study())
        for words in ("# Title", "Claim.", "    maporl compare s", "Read this.", "4.5 core-min"):
            assert words in text
        assert "| MAPoRL \\| ours | method | .300 .200 | .300 .750 |" in text
        assert "(?) MAPoRL | ours. Training moves the last turn" in text

    def test_greedy_sentences_follow_and_say_so(self) -> None:
        sampled, greedily = sentences(self.study())[:-1], sentences(self.study())[-1]
        assert not any("greedy" in sentence for sentence in sampled)
        # .9 - .3 for both seeds
        assert greedily.startswith("(+) greedy: MAPoRL | ours. From the first to the last turn")
        assert "+0.600 ± 0.000" in greedily

    def test_claims_stand_at_the_top_and_in_their_section(self) -> None:
        claims = (
            Claim("It rises.", ("maporl/turns",)),
            Claim("It was flat.", ("maporl/off-the-shelf",)),
        )
        study = replace(self.study(), claims=claims)
        top, section = claims_page(printed_results([study]), "results.md"), printed_page(study)
        # sampled: .45 +- .635, greedy: .6 +- 0; before: -.1 for both seeds
        assert "| s | It rises. | **not shown** | holds | MAPoRL \\| ours. From the first" in top
        assert "| s | It was flat. | **holds** | not measured | MAPoRL \\| ours. Off the sh" in top
        # Two seeds, no spread: no test. Two claims count.
        assert top.count("| - |\n") == 2
        assert "0 of the 0 that hold or fail are left at 0.05" in " ".join(top.split())
        assert "## Settings chosen on test questions" in top
        assert "- **Not shown**: It rises. (MAPoRL | ours. From the first to the last" in section
        assert "Greedy: **holds**. (MAPoRL | ours. From the first to the last turn: +0.6" in section
        assert "No claim to judge: a survey." in printed_page(self.study())

    def test_the_page_names_machine_and_commits(self) -> None:
        commits = ["0123456789abcdef-dirty", "f" * 40]
        study = replace(
            self.study(),
            machine={"platform": "Linux x86_64", "cpu_count": "2"},
            versions={"packages": {"torch": "2.13.0"}, "commits": commits},
        )
        text = " ".join(printed_page(study).split())
        assert "on Linux x86_64 with 2 cores; torch 2.13.0, commit 0123456789ab-dirty" in text
        assert "commit ffffffffffff." in text

    def test_without_studies_it_says_so(self) -> None:
        assert "No study has been carried out yet" in summary(printed_results([]), "results")
        text = summary(printed_results([self.study()]), "results")
        assert "No study has been carried out yet" not in text

    def test_sentences_are_marked_for_and_against(self) -> None:
        mark = re.compile(r"\([+?=-]\) (greedy: )?MAPoRL")
        assert all(mark.match(sentence) for sentence in sentences(self.study()))


class TestIncentives:
    PAID = CASES[1]  # alpha0: a wrong agent among wrong peers becomes right

    def arm(self, name: str, corrected: tuple[int, int], turn: int = 1, **settings: Any) -> Arm:
        """Two seeds; of 10 wrong answers beside a wrong majority, so many became right."""
        seeds = tuple(
            SeedResult(
                seed,
                (
                    replace(
                        measurement("after", "sampled", 0.5),
                        transitions=(
                            Transition(turn, False, "wrong", True, "wrong", right),
                            Transition(turn, False, "wrong", False, "wrong", 10 - right),
                        ),
                    ),
                ),
            )
            for seed, right in enumerate(corrected)
        )
        role = "method" if name == "none" else "variant"
        settings = {"incentive": name, **settings}
        return Arm(name, name, role, seeds, settings=settings)  # type: ignore[arg-type]

    def study(self, *arms: Arm) -> Study:
        return Study("i", "t", "c", "cmd", "2026-01-02T03:04:05", arms)

    def test_rates_are_shares_of_the_messages_with_that_past(self) -> None:
        arm = self.arm("none", (2, 3))
        assert flip_rates(arm, self.PAID, 1) == {0: 0.2, 1: 0.3}
        assert flip_rates(arm, self.PAID, 0) == {}  # of another turn
        assert flip_rates(arm, self.PAID, 1, decoding="greedy") == {}
        assert flip_rates(arm, CASES[3], 1) == {}  # nobody was right

    @pytest.mark.parametrize(
        ("corrected", "kind", "words"),
        [
            ((6, 7), "supports", "as paid"),
            ((2, 3), "open", "within the spread"),
            ((1, 2), "contradicts", "against what is paid"),
            ((1, 9), "open", "within the spread"),
        ],
    )
    def test_a_weight_is_judged_by_what_it_pays_for(
        self, corrected: tuple[int, int], kind: str, words: str
    ) -> None:
        # paired differences (.4, .4): no spread; (0, 0): none; (-.1, -.1); (-.1, .6): wide
        study = self.study(self.arm("none", (2, 3)), self.arm("alpha0", corrected))
        verdict, others = incentive_verdicts(study)  # alpha0's other change had no past
        assert (verdict.kind, verdict.name) == (kind, "alpha0/alpha0-gain-2")
        assert "wrong peers becomes right, turn 2 to 3" in verdict.sentence
        assert "against 0.250 without bonus" in verdict.sentence
        assert words in verdict.sentence
        assert "0 of 1 moved" in others.sentence  # beta0's wrong peers never became right

    def test_what_is_deducted_is_meant_to_become_rarer(self) -> None:
        rarer = paid_verdict("a", CASES[3], 0, estimate([-0.1, -0.1]), {0: 0.5, 1: 0.5})
        assert (rarer.kind, rarer.arm) == ("supports", "a")
        more = paid_verdict("a", CASES[3], 0, estimate([0.1, 0.1]), {0: 0.5, 1: 0.5})
        assert more.kind == "contradicts"

    @pytest.mark.parametrize(("case", "usual"), [(CASES[0], 0.95), (CASES[2], 0.05)])
    def test_where_nearly_all_is_right_there_is_no_room(self, case: Case, usual: float) -> None:
        verdict = paid_verdict("a", case, 0, estimate([0.01, -0.01]), {0: usual})
        assert verdict.kind == "open"
        assert "left no room" in verdict.sentence

    def test_changes_that_are_not_paid_for_are_told_apart(self) -> None:
        """beta0 pays the message of turn 2, which is frozen here; what alpha0 pays for moved."""
        none = self.arm("none", (2, 3))
        bonus = self.arm("beta0", (6, 7), trained_turns=[3])
        [side] = incentive_verdicts(self.study(none, bonus))
        assert side.kind == "neutral"
        assert "1 of 2 moved beyond the spread" in side.sentence
        assert "a wrong agent among wrong peers becomes right, turn 2 to 3 +0.400" in side.sentence

    def test_beta_is_paid_to_the_earlier_message_and_alpha_to_the_later(self) -> None:
        alpha, beta = CASES[0], CASES[4]
        assert [learns([2, 3], alpha, turn) for turn in (0, 1)] == [True, True]
        assert [learns([2, 3], beta, turn) for turn in (0, 1)] == [False, True]
        assert learns(None, beta, 0)

    def test_without_an_arm_without_bonus_nothing_is_said(self) -> None:
        alone = replace(self.arm("alpha0", (6, 7)), role="method")
        assert incentive_verdicts(self.study(alone)) == []


def topics(plan: StudyPlan) -> list[str]:
    """Return what sentences of an arm may be called."""
    paid = [paid_topic(case, turn) for case in CASES for turn in (0, 1)]
    return ["off-the-shelf", "training", "turns", *(arm.name for arm in plan.arms), *paid]


class TestStudies:
    @pytest.mark.parametrize("name", list(catalogue.STUDIES))
    def test_every_study_makes_games_and_has_names_once(self, name: str) -> None:
        plan = catalogue.study(name)
        assert plan.name == name
        assert len({arm.name for arm in plan.arms}) == len(plan.arms)
        assert any(arm.role == "method" for arm in plan.arms)
        jobs = plan.jobs(catalogue.DEFAULT_SEEDS)
        assert len({job.key for job in jobs}) == len(jobs)
        assert expected_minutes(plan, (0,)) < expected_minutes(plan, (0, 1))
        told = {f"{arm.name}/{topic}" for arm in plan.arms for topic in topics(plan)}
        assert {name for claim in plan.claims for name in claim.stands_on} <= told
        assert bool(plan.claims) == ("no claim" not in plan.claim)
        quick = plan.quick()
        assert expected_minutes(quick, (0,)) < expected_minutes(plan, (0,))

    def test_the_survey_has_one_reference_and_variants(self) -> None:
        roles = {arm.name: arm.role for arm in catalogue.study("variants").arms}
        assert [name for name, role in roles.items() if role == "method"] == ["gamma-1"]
        assert set(roles.values()) == {"method", "variant"}
        variant = catalogue.study("variants").arms[0]
        assert variant.before(0) is not None

    def test_beta_is_judged_where_its_turns_are_trained(self) -> None:
        plan = catalogue.study("incentives")
        stands_on = {claim.stands_on[0].split("/")[0]: claim.stands_on for claim in plan.claims}
        assert len(stands_on["alpha0"]) == 4
        assert stands_on["beta1"] == ("beta1/beta1-gain-2", "beta1/beta1-loss-2")

    def test_unknown_names_are_answered_by_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match="shopping"):
            catalogue.study("nonsense")


class TestCommandLine:
    def run(self, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main(["compare", *argv])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    def test_the_list_explains_every_study(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, _ = self.run(capsys, "--list")
        assert code == 0
        for name in catalogue.STUDIES:
            assert f"{name}: " in out
        assert "core-minutes" in out

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["nonsense"], "choose one of"),
            ([], "name a study"),
            (["shopping", "--seeds", "1", "1"], "every seed once"),
        ],
    )
    def test_mistakes_are_one_sentence(
        self, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
    ) -> None:
        code, _, err = self.run(capsys, *argv)
        assert code == 2
        assert words in err
        assert "Traceback" not in err

    def test_a_study_from_the_command_to_the_page(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def in_process(pool: Pool, jobs: list[Job], tick: object) -> None:
            for job in jobs:
                carry_out(job, pool.root / job.key, quiet())

        monkeypatch.setattr(Pool, "run", in_process)
        monkeypatch.setitem(catalogue.STUDIES, "small", lambda: PLAN)
        docs = tmp_path / "results.md"
        argv = ["small", "--seeds", "0", "--runs", str(tmp_path), "--docs", str(docs)]
        code, out, _ = self.run(capsys, *argv)
        assert code == 0
        assert "2 jobs, 0 of them done before" in out
        assert "A note." in out
        assert "    maporl compare small --seeds 0\n" in (tmp_path / "results/small.md").read_text()
        study = json.loads((tmp_path / "studies" / "small" / "study.json").read_text())
        assert study["budget"]["seeds"] == [0]


@pytest.mark.slow
def test_a_quick_study_in_processes_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["compare", "shopping", "--quick", "--seeds", "0", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 0
    study = Study.load(tmp_path / "studies" / "shopping-quick" / "study.json")
    assert all(len(arm.seeds) == 1 for arm in study.arms)
    assert study.budget["core-minutes"] > 0
    with pytest.raises(SystemExit):
        cli.main(argv)
    assert "2 of them done before" in capsys.readouterr().out
