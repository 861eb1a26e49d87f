"""The studies on a real model: what their arms share, and a miniature of each on a built-in one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from study_cases import PPO, quiet
from verifier_cases import make

from maporl_agents import cli, tiny
from maporl_agents.config import EvalConfig, PPOConfig, TrainConfig, turns_of
from maporl_agents.models.sources import model_download
from maporl_agents.studies import catalogue, smollm2
from maporl_agents.studies.arms import with_game, with_team
from maporl_agents.studies.carry_out import assemble, compare
from maporl_agents.studies.job_pool import Pool
from maporl_agents.studies.jobs import Job, carry_out, measure_path, missing
from maporl_agents.studies.kept import bring, keep
from maporl_agents.studies.plan import ArmPlan, StudyPlan, expected_minutes
from maporl_agents.studies.results import Study
from maporl_agents.training.make_game import make_verifiers

SEED = (0,)


def job_keys(plan: StudyPlan) -> set[str]:
    return {job.key for job in plan.jobs(SEED)}


def plans() -> dict[str, StudyPlan]:
    return {name: catalogue.study(name) for name in catalogue.groups()["smollm2"]}


def test_keys_need_no_model_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {name: job_keys(plan) for name, plan in plans().items()}
    monkeypatch.setenv("MAPORL_CACHE", str(tmp_path))  # empty: nothing is fetched
    assert {name: job_keys(plan) for name, plan in plans().items()} == expected
    other = replace(model_download.FETCHABLE[smollm2.MODEL], sha256="0" * 64)
    monkeypatch.setitem(model_download.FETCHABLE, smollm2.MODEL, other)
    for name, plan in plans().items():
        # Two built-in models have the same weights as before.
        assert len(job_keys(plan) & expected[name]) == (name == "smollm2-bases")


def test_equal_arms_of_two_studies_are_one_run() -> None:
    found = plans()
    trained = {
        name: {arm.name: arm.job(0).key for arm in plan.arms} for name, plan in found.items()
    }
    [shared] = {
        trained["smollm2-debate"]["maporl"],
        trained["smollm2-alone"]["maporl"],
        *(trained["smollm2-transfer"][name] for name in ("to-misled", "to-differences")),
        trained["smollm2-transfer"]["sums-itself"],
    }
    assert shared == trained["smollm2-debate"]["maporl-alone"]
    assert trained["smollm2-alone"]["alone-4x"] == trained["smollm2-alone"]["alone-4x-vote"]
    assert len(set(trained["smollm2-incentives"].values())) == 5


def test_budgets_and_frozen_turns_are_what_the_claims_say() -> None:
    found = plans()
    debate = found["smollm2-debate"].arms[0].recipe.config
    assert turns_of(debate.team.train_turns, debate.game.num_turns) == {1}
    alone = {arm.name: arm.recipe.config for arm in found["smollm2-alone"].arms}
    assert alone["alone-1x"].steps == alone["maporl"].steps
    assert alone["alone-4x"].steps == 4 * alone["maporl"].steps
    assert all(arm.measure.decodings for plan in found.values() for arm in plan.arms)
    for plan in found.values():
        trained = {
            (arm.recipe.config.steps, arm.recipe.config.questions_per_step)
            for arm in plan.arms
            if arm.recipe.method == "ppo" and not arm.name.startswith("alone-4x")
        }
        assert len(trained) == 1, plan.name


def test_all_of_the_built_in_studies_leaves_the_real_model_out() -> None:
    assert not set(catalogue.groups()["all"]) & set(catalogue.groups()["smollm2"])
    assert set(catalogue.known()) == {*catalogue.groups()["all"], *catalogue.groups()["smollm2"]}
    assert all(expected_minutes(plan, SEED) > 10 for plan in plans().values())


# --- Kept figures -------------------------------------------------------------------

SMALL = StudyPlan("small", "A small study", "It runs.", (ArmPlan("a", "the arm", "method", PPO),))


def finished_job(root: Path, job: Job) -> Path:
    """A folder as a job leaves it, with weights, whose figures were made up."""
    folder = root / job.key
    (folder / "measures").mkdir(parents=True)
    (folder / "run" / "checkpoints").mkdir(parents=True)
    (folder / "job.json").write_text(job.to_json())
    (folder / "cost.json").write_text('{"cpu_seconds": 60}')
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "answers": 6, "tokens": 60}\n')
    (folder / "run" / "checkpoints" / "weights").write_text("large")
    turn = {
        "accuracy": [0.5],
        "vote": 0.5,
        "vote_interval": 0.1,
        "wrong_to_right": 0.0,
        "right_to_wrong": 0.0,
        "agreement": 0.5,
        "invalid": 0.0,
        "score": 0.5,
    }
    figures = {"turns": [turn], "num_questions": 4, "num_answers": 4, "num_tokens": 9}
    figures["transitions"] = []
    for what in job.measures:
        found = dict.fromkeys(what.decodings, figures)
        measure_path(folder, what).write_text(json.dumps(found))
    return folder


def test_figures_are_kept_as_soon_as_a_job_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the process is killed then, which nothing it does at its end would survive."""
    [first, *more] = SMALL.jobs(SEED)
    root, kept = tmp_path / "studies" / "jobs", tmp_path / "kept"
    seen = []

    def run(pool: Pool, jobs: Sequence[Job], tick: Callable[[Pool], None]) -> None:
        for job in jobs:
            finished_job(root, job)
            pool.finished(job)
            seen.append(job.key if not missing(job, kept / job.key) else None)

    finished_job(root, first)
    monkeypatch.setattr(Pool, "run", run)
    compare(SMALL, SEED, tmp_path, quiet(), workers=1, command="", kept=kept, collect=False)
    assert seen == [job.key for job in more]
    assert not missing(first, kept / first.key)


def test_kept_figures_count_as_done_on_another_machine(tmp_path: Path) -> None:
    jobs = SMALL.jobs(SEED)
    first, kept, second = (tmp_path / name for name in ("first", "kept", "second"))
    for job in jobs:
        finished_job(first, job)
    assert keep(jobs, first, kept) == len(jobs)
    assert keep(jobs, first, kept) == 0
    assert not list(kept.rglob("weights"))
    assert bring(jobs, kept, second) == len(jobs)
    assert not any(missing(job, second / job.key) for job in jobs)
    studies = [assemble(SMALL, SEED, root, command="", errors={}) for root in (first, second)]
    assert studies[0].arms[0].seeds[0].measurements == studies[1].arms[0].seeds[0].measurements
    assert studies[1].arms[0].seeds[0].train_answers == 6
    assert studies[1].budget["core-minutes"] == len(jobs)


def test_the_kept_figures_are_those_of_todays_studies() -> None:
    """A changed recipe must not leave hours of figures behind without anybody noticing."""
    folder = Path(__file__).parents[3] / "benchmarks" / "smollm2_jobs"
    wanted = {job.key for plan in plans().values() for job in plan.jobs((0, 1, 2, 3, 4))}
    found = {path.name for path in folder.iterdir()}
    assert found, "the repository keeps the figures of finished jobs"
    assert found <= wanted


def test_rows_without_all_seeds_are_named(tmp_path: Path) -> None:
    root = tmp_path / "studies" / "jobs"
    for job in SMALL.jobs(SEED):
        finished_job(root, job)
    study = assemble(SMALL, (0, 1, 2), root, command="", errors={})
    assert study.notes == ("Not carried out yet: the arm (seeds 1, 2).",)
    whole = assemble(SMALL, SEED, root, command="", errors={})
    assert whole.notes == ()


def test_collecting_runs_nothing(tmp_path: Path) -> None:
    """Both seeds are missing; a process would be started for them."""
    errors = compare(
        SMALL, (0, 1), tmp_path, quiet(), workers=1, command="c", kept=tmp_path / "k", collect=True
    )
    assert errors == {}
    assert not (tmp_path / "studies" / "jobs").exists()
    study = Study.load(tmp_path / "studies" / "small" / "study.json")
    assert study.notes == ("Not carried out yet: all rows, seeds 0, 1.",)


@pytest.mark.thorough
def test_the_pages_of_studies_that_wait_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "smollm2.md"
    page.parent.mkdir()
    words = ["compare", "smollm2", "--collect", "--runs", str(tmp_path), "--docs", str(page)]
    with pytest.raises(SystemExit, match="0"):
        cli.main([*words, "--seeds", "0", "1"])
    text = page.read_text()
    assert "SmolLM2: do incentives steer behaviour?" in text
    assert "**not measured**" in text
    study = (page.with_suffix("") / "smollm2-incentives.md").read_text()
    assert "Not carried out yet: all rows, seeds 0, 1." in study
    assert not list(page.parent.rglob("*.png"))
    capsys.readouterr()


# --- Miniatures ---------------------------------------------------------------------

MINIATURE = replace(
    with_team(smollm2.NOTES, model=("tiny-sharing-qwen2",)),
    steps=1,
    questions_per_step=2,
    ppo=PPOConfig(minibatches=1),
    eval=EvalConfig(questions=4),
)
ROW = '{{"question": "Ann has {0} pens and buys {0} more. How many?", "answer": "So. #### {1}"}}'


def small(plan: StudyPlan) -> StudyPlan:
    """The same arms, each trained in one step of two questions."""

    def short(config: TrainConfig) -> TrainConfig:
        config = replace(config, steps=1, questions_per_step=2, eval=MINIATURE.eval)
        return with_game(config, long_questions="keep")

    arms = tuple(
        replace(arm, recipe=replace(arm.recipe, config=short(arm.recipe.config)))  # type: ignore[arg-type]
        for arm in plan.arms
    )
    return replace(plan, arms=arms)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "make", [smollm2.incentives, smollm2.debate, smollm2.alone, smollm2.transfer, smollm2.bases]
)
def test_a_miniature_runs_from_training_to_claims(
    make: Callable[[TrainConfig], StudyPlan], tmp_path: Path
) -> None:
    plan = small(make(MINIATURE))
    root = tmp_path / "jobs"
    for job in plan.jobs(SEED):
        carry_out(job, root / job.key, quiet())
    study = assemble(plan, SEED, root, command="", errors={})
    assert all(len(arm.seeds) == 1 for arm in study.arms)
    assert not any(note.startswith("Not carried out") for note in study.notes)
    kept = tmp_path / "kept"
    assert keep(plan.jobs(SEED), root, kept) == len(plan.jobs(SEED))


@pytest.mark.thorough
def test_the_verifiers_study_runs_with_verifiers_that_were_made(tmp_path: Path) -> None:
    data, root = tmp_path / "gsm8k", tmp_path / "jobs"
    data.mkdir()
    for split, numbers in (("train", range(2, 30)), ("test", range(30, 40))):
        rows = (ROW.format(number, 2 * number) for number in numbers)
        (data / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    for name in ("gsm8k-balanced", "gsm8k-unbalanced"):
        make(tiny.checkpoint(0), lora_rank=2).save(tmp_path / name)
    plan = small(smollm2.verifier(MINIATURE, tmp_path, str(data)))
    for job in plan.jobs(SEED):
        carry_out(job, root / job.key, quiet())
    study = assemble(plan, SEED, root, command="", errors={})
    assert [len(arm.seeds) for arm in study.arms] == [1, 1, 1]


def test_without_its_verifier_a_job_says_what_is_missing(tmp_path: Path) -> None:
    [_, job, *_] = small(smollm2.verifier(MINIATURE, tmp_path)).jobs(SEED)
    assert job.recipe.method == "ppo"
    with pytest.raises(ValueError, match="gsm8k-balanced"):
        make_verifiers([job.config.game.verifier])
