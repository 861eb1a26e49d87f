"""Results of studies are assembled and printed; ``maporl compare``."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from study_cases import PPO, measurement, quiet

from maporl_agents import cli
from maporl_agents.records import versions
from maporl_agents.studies import catalogue, jobs
from maporl_agents.studies.arms import with_controls
from maporl_agents.studies.carry_out import assemble
from maporl_agents.studies.job_pool import Pool
from maporl_agents.studies.jobs import Job, carry_out
from maporl_agents.studies.page import claims_page, study_page, summary
from maporl_agents.studies.plan import ArmPlan, StudyPlan
from maporl_agents.studies.printed import COLUMNS, printed_results, rows, sentences
from maporl_agents.studies.results import Arm, Claim, SeedResult, Study

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
    @pytest.mark.thorough
    def test_a_study_from_its_jobs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(versions, "_commit", lambda: "c0ffee")
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
        now = versions.versions()
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
        assert study.notes[:2] == ("A note.", f"Its jobs were made at 3 commits: {COMMITS}.")
        assert study.notes[2].startswith("Not carried out yet: all rows")

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

    @pytest.mark.thorough
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
        assert "    maporl compare small --seeds 0\n" in (tmp_path / "results/small.md").read_text(
            encoding="utf-8"
        )
        study = json.loads(
            (tmp_path / "studies" / "small" / "study.json").read_text(encoding="utf-8")
        )
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
