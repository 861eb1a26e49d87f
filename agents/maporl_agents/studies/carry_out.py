"""Carry out a study, put its results together and show them.

    runs/studies/jobs/<key>/           one team and its measurements, shared by all studies
    runs/studies/<study>/study.json    the result, see `studies.results`

Jobs that were finished earlier, for this study or another, are not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maporl_agents.measure.debate_stats import Transition, TurnStats
from maporl_agents.records.run_log import read_metrics
from maporl_agents.studies.controls import Measure
from maporl_agents.studies.job_pool import Pool, made, progress_view, title_of
from maporl_agents.studies.jobs import Job, cost, missing, ran_on, read_measure
from maporl_agents.studies.kept import bring, keep
from maporl_agents.studies.plan import (
    ArmPlan,
    StudyPlan,
    expected_minutes,
    expected_seconds,
)
from maporl_agents.studies.printed import (
    BRIEF,
    claim_lines,
    printed_claims,
    rows,
    sentences,
    short,
)
from maporl_agents.studies.results import NOT_YET, Arm, Measurement, SeedResult, Stage, Study


def assemble(
    plan: StudyPlan, seeds: Sequence[int], root: Path, *, command: str, errors: dict[str, str]
) -> Study:
    """Return the results of the jobs that were carried out; notes name those that failed."""
    jobs = plan.jobs(tuple(seeds))
    failures = [
        f"Failed, so left out: {title_of(job)}: {errors[job.key]}"
        for job in jobs
        if job.key in errors
    ]
    origins = [one for job in jobs for one in ran_on(root / job.key)]
    made_by = versions_of(origins)
    minutes = sum(cost(root / job.key) for job in jobs) / 60
    return Study(
        name=plan.name,
        title=plan.title,
        claim=plan.claim,
        command=command,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        arms=tuple(arm_of(arm, seeds, root) for arm in plan.arms),
        metric=plan.metric,
        machine={name: all_of(origins, name) for name in ("platform", "cpu_count")},
        versions=made_by,
        budget={"core-minutes": round(minutes, 1), "jobs": len(jobs), "seeds": list(seeds)},
        notes=(
            *plan.notes,
            *several_commits(made_by["commits"]),
            *failures,
            *not_carried_out(plan, seeds, root, errors),
        ),
        claims=plan.claims,
    )


def not_carried_out(
    plan: StudyPlan, seeds: Sequence[int], root: Path, errors: Mapping[str, str]
) -> tuple[str, ...]:
    """Return a note of the rows that have not all seeds, if there are any."""
    waiting = {
        arm.label: [
            seed
            for seed in seeds
            if (job := arm.job(seed)).key not in errors and missing(job, root / job.key)
        ]
        for arm in plan.arms
    }
    if all(left == list(seeds) for left in waiting.values()):
        return (f"{NOT_YET}: all rows, seeds {', '.join(map(str, seeds))}.",)
    words = [
        f"{label} (seed{'s' * (len(left) > 1)} {', '.join(map(str, left))})"
        for label, left in waiting.items()
        if left
    ]
    return (f"{NOT_YET}: {'; '.join(words)}.",) if words else ()


def versions_of(origins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the versions of all jobs of a study together; see `Study.versions`."""
    packages = [one["packages"] for one in origins]
    names = dict.fromkeys(name for one in packages for name in one)
    return {
        "python": all_of(origins, "python"),
        "packages": {name: text for name in names if (text := all_of(packages, name))},
        "commits": sorted({str(one["commit"] or "unknown") for one in origins}),
    }


def all_of(records: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return every value that a name has in some records, e.g. "2.12.0, 2.13.0"."""
    found = {str(one[name]) for one in records if one.get(name) is not None}
    return ", ".join(sorted(found))


def several_commits(commits: Sequence[str]) -> tuple[str, ...]:
    """Return a note that the jobs of a study were not all made by the same code, if so."""
    if len(commits) < 2:
        return ()
    return (f"Its jobs were made at {len(commits)} commits: {', '.join(map(short, commits))}.",)


def arm_of(plan: ArmPlan, seeds: Sequence[int], root: Path) -> Arm:
    """Return one row with every seed that was carried out."""
    done = [seed for seed in seeds if not missing(plan.job(seed), root / plan.job(seed).key)]
    return Arm(
        name=plan.name,
        label=plan.label,
        role=plan.role,
        seeds=tuple(seed_result(plan, seed, root) for seed in done),
        control=plan.control,
        of=plan.of,
        description=plan.description,
        settings=plan.settings,
    )


def seed_result(plan: ArmPlan, seed: int, root: Path) -> SeedResult:
    """Return one row with one seed, whose job was carried out."""
    job, before = plan.job(seed), plan.before(seed)
    folder = root / job.key
    measurements = measurements_of(folder, plan.measure, "after")
    if before is not None and not missing(before, root / before.key):
        measurements = measurements_of(root / before.key, plan.measure, "before") + measurements
    trained = job.recipe.method != "none"
    curve = read_metrics(folder / "run") if trained else []
    return SeedResult(
        seed=seed,
        measurements=tuple(measurements),
        train_answers=round(sum(row.get("answers", 0) for row in curve)),
        train_tokens=round(sum(row.get("tokens", 0) for row in curve)),
        curve=tuple(curve),
        folder=f"../jobs/{job.key}/run" if trained else None,
    )


def measurements_of(folder: Path, what: Measure, stage: Stage) -> list[Measurement]:
    """Return one measurement of a job, in each decoding it was made in."""
    saved = read_measure(folder, what)
    return [
        Measurement(
            stage=stage,
            decoding=decoding,  # type: ignore[arg-type]
            turns=tuple(
                TurnStats(**{**turn, "accuracy": tuple(turn["accuracy"])})
                for turn in saved[decoding]["turns"]
            ),
            num_questions=saved[decoding]["num_questions"],
            num_answers=saved[decoding]["num_answers"],
            num_tokens=saved[decoding]["num_tokens"],
            transitions=tuple(Transition(**one) for one in saved[decoding]["transitions"]),
        )
        for decoding in what.decodings
    ]


def finished(runs: Path, names: Sequence[str]) -> list[Study]:
    """Return those of some studies that were carried out, in their order."""
    paths = [runs / "studies" / name / "study.json" for name in names]
    return [Study.load(path) for path in paths if path.is_file()]


def explain(console: Console, plans: Sequence[StudyPlan], seeds: Sequence[int]) -> None:
    """Print what each study claims, its arms, and what it is expected to cost."""
    for plan in plans:
        table = Table(*("arm", "role", "team", "measured"), title_justify="left")
        table.title = f"{plan.name}: {plan.title}"
        for arm in plan.arms:
            table.add_row(arm.label, arm.role, made(arm.recipe), arm.measure.kind)
        console.print(table)
        console.print(plan.claim)
        console.print(f"about {expected_minutes(plan, seeds):.0f} core-minutes\n")


def compare(
    plan: StudyPlan,
    seeds: Sequence[int],
    runs: Path,
    console: Console,
    *,
    workers: int,
    command: str,
    kept: Path | None,
    collect: bool,
) -> dict[str, str]:
    """Carry out a study and write its file.

    Args:
        plan: the study.
        seeds: one result each.
        runs: folder of all runs; everything goes below its ``studies``.
        console: where progress and the table are shown.
        workers: processes at once.
        command: the command line, saved with the results.
        kept: folder of figures of jobs, see `studies.kept`; None for none.
        collect: run nothing, and put together what is there.

    Returns:
        The errors of failed jobs by key.
    """
    root = runs / "studies" / "jobs"
    jobs = plan.jobs(tuple(seeds))
    if kept is not None:
        bring(jobs, kept, root)
        keep(jobs, root, kept)  # what was finished before
    todo = [job for job in jobs if missing(job, root / job.key)]
    console.print(f"{plan.name}: {len(jobs)} jobs, {len(jobs) - len(todo)} of them done before")

    def finished(job: Job) -> None:
        if kept is not None:  # at once: this process may be killed
            keep([job], root, kept)

    pool = Pool(root, workers, finished=finished)
    if todo and not collect:
        minutes = sum(map(expected_seconds, todo)) / 60
        console.print(
            f"about {minutes:.0f} core-minutes, {minutes / workers:.0f} on {workers} cores"
        )
        with progress_view(console, len(todo)) as tick:
            pool.run(todo, tick)
    result = assemble(plan, seeds, root, command=command, errors=pool.errors)
    folder = runs / "studies" / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "study.json")
    show(console, result)
    console.print(f"\nwrote {folder / 'study.json'}; as a page: maporl report {folder}")
    return pool.errors


def show(console: Console, result: Study) -> None:
    """Print a study's table and its conclusions."""
    table = Table(*BRIEF, title=result.title, title_justify="left")
    for row in rows(result, BRIEF):
        table.add_row(*row)
    console.print(table)
    claims = printed_claims(result, ["-"] * len(result.claims))
    for line in (*claim_lines(claims), *sentences(result)):
        console.print(Text(line.replace("**", "")))
    for note in result.notes:
        console.print(Text(f"Note: {note}"))
