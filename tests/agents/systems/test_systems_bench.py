"""The bench of systems: budgets, refusals, jobs that fail or are killed, pages, the command."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import http_servers
import pytest
import torch

from maporl_agents.cli import main
from maporl_agents.config import TeamConfig
from maporl_agents.models.loading import make_team
from maporl_agents.systems import distilled, tasks, training, workers
from maporl_agents.systems.catalogue import SYSTEMS, system
from maporl_agents.systems.claims import by_task, comparisons, rows_of
from maporl_agents.systems.jobs import (
    BenchJob,
    BenchResult,
    BenchSettings,
    all_jobs,
    as_plain,
    carry_out,
    error_of,
    is_done,
    result_path,
)
from maporl_agents.systems.page import Bench, html_page, markdown_page
from maporl_agents.systems.playing import is_endpoint
from maporl_agents.systems.tasks import TASKS, Marker, bench_task, scores_by
from maporl_agents.systems.workers import Queue, work_off
from maporl_agents.tiny import checkpoint
from maporl_agents.training.make_game import make_game
from maporl_agents.update.token_logprobs import score_tokens
from maporl_env.types import Question

SMALL = BenchSettings(questions=6, validation=3, answers=4, train_scale=0.01, temperatures=(1.0,))
NOTHING: dict[BenchJob, str] = {}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["compare", "systems", *words])
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def made(system: str, seed: int, right: Sequence[float], tokens: float = 20.0) -> BenchResult:
    """A result of two passes on `shopping`; the first has no answer right."""
    return BenchResult(
        "shopping",
        system,
        seed,
        as_plain(SMALL),
        1.0,
        {"1.0": 0.5},
        (tokens / 2, tokens),
        ((0.0,) * len(right), tuple(right)),
        20.0,
        0,
        1.0,
        {"commit": "0" * 40},
    )


# --- Tasks and systems --------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_nobody_plays_with_the_key_at_test_time(task: tasks.BenchTask) -> None:
    game = task.game()
    assert game.verifier != "key"
    assert not game.feedback_verifier  # what is shown is what is known, too
    assert task.training_game().verifier == "key"
    questions = task.questions("test", 100)
    assert not {q.id for q in questions} & {q.id for q in task.questions("validation", 40)}
    if not task.verifier:
        assert set(tasks.nothing_known(questions, [""] * 100)) == {0.0}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_gold_answer_is_right_and_another_is_not(task: tasks.BenchTask) -> None:
    marker = Marker(task)
    for question in task.questions("validation", 5):
        gold = int(question.answer) if question.kind == "number" else question.answer
        assert marker.right(question, gold)
        assert not marker.right(question, 98)


def test_too_many_questions_are_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="fewer than 999999: ask fewer"):
        TASKS["sharing"].questions("test", 999_999)


def test_what_does_not_fit_is_left_out_with_a_reason() -> None:
    jobs = {(job.task, job.system) for job in all_jobs(tuple(TASKS), tuple(SYSTEMS), (0,), SMALL)}
    assert ("shopping", "product") in jobs
    assert ("coins", "product") not in jobs
    assert system("product").refusal(TASKS["coins"]) == "all members are the same model"
    assert "best_of_n" in SYSTEMS
    assert ("sharing", "best_of_n") not in jobs
    assert TASKS["coins"].played_by("tiny-sharing").words == ""
    served = TASKS["coins"].played_by("http://127.0.0.1:1/v1,model=m")
    fitting = [one.name for one in SYSTEMS.values() if not one.refusal(served)]
    assert {"vote", "best_of_n", "debate", "lessons", "cascade"} <= set(fitting)
    assert not any(SYSTEMS[name].trained for name in fitting)
    assert is_endpoint("https://x/v1,model=m")
    assert not is_endpoint("owner/model")


def test_an_own_task_needs_a_model_and_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValueError, match="played by no built-in model: name one by --model"):
        SMALL.task("notes")
    assert replace(SMALL, model="owner/model").task("notes").models == ("owner/model",)
    with pytest.raises(ValueError, match="unknown task"):
        bench_task("nonsense")


@pytest.mark.parametrize("name", tasks.FOR_MODELS)
def test_models_that_are_not_built_in_are_asked_in_plain_english(name: str) -> None:
    task = bench_task(name).played_by("owner/model")
    debates = make_game(task.game(num_agents=2, num_turns=1)).debates(1)
    debates.reset(task.questions("test", 1))
    assert "\\boxed{}" in debates.prompts()[0].text


# --- Results and claims -------------------------------------------------------------


def test_a_result_survives_its_file_and_other_settings_are_refused(tmp_path: Path) -> None:
    one = made("vote", 0, [1.0, 0.5, 1 / 3])
    job = BenchJob("shopping", "vote", 0)
    path = result_path(tmp_path, job)
    path.parent.mkdir()
    path.write_text(one.to_text(), encoding="utf-8")
    read = BenchResult.read(path)
    assert replace(read, right=one.right) == one
    assert read.right[-1] == pytest.approx(one.right[-1], abs=1e-4)
    assert is_done(tmp_path, job, SMALL)
    with pytest.raises(ValueError, match=r"made with other settings \(questions\)"):
        is_done(tmp_path, job, replace(SMALL, questions=7))
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no result of this bench"):
        is_done(tmp_path, job, SMALL)


def test_claims_are_corrected_together_and_dear_systems_are_marked() -> None:
    low, high = [0.0, 0.0, 1.0, 0.0] * 10, [1.0, 1.0, 1.0, 0.0] * 10
    results = by_task(
        [
            *(made("vote", seed, low) for seed in range(3)),
            *(made("debate", seed, high) for seed in range(3)),
            *(made("collab", seed, high, tokens=200.0) for seed in range(3)),
            *(made("lessons", seed, low) for seed in range(3)),
            made("grpo", 0, high),
        ]
    )
    found = {one.system: one for one in comparisons(results)}
    assert found["debate"].found == "ahead"
    assert found["lessons"].found == "not shown"
    assert found["grpo"].found == "not measured"  # one seed is no test
    assert [row.system for row in rows_of(results["shopping"]) if row.dear] == ["collab"]
    single = {
        one.system: one
        for one in comparisons(
            {"shopping": {name: results["shopping"][name] for name in ("vote", "debate")}}
        )
    }
    assert single["debate"].p is not None
    assert found["debate"].p is not None
    assert found["debate"].p >= single["debate"].p


def test_the_page_is_one_file_and_says_what_is_missing() -> None:
    jobs = [BenchJob("shopping", name, seed) for name in ("vote", "debate") for seed in (0, 1)]
    broken = BenchJob("shopping", "debate", 1)
    results = [made("vote", 0, [1.0, 0.0]), made("vote", 1, [1.0, 1.0])]
    refused = {"shopping": {"merged": "a reason"}}
    bench = Bench(SMALL, results, jobs, {broken: "ValueError: <b>no</b>"}, "maporl x", refused)
    page = html_page(bench)
    assert not re.search(r"(?:src|href)=|@import|url\(", page)
    assert "2 of 4 planned jobs" in page
    unbroken = Bench(SMALL, results, jobs, {}, "maporl x", refused)
    assert "Not carried out on shopping, number of seeds: debate (2)." in html_page(unbroken)
    assert "Not carried out on shopping, number of seeds: debate (1)." in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert "<svg" in page
    assert "a reason" in page
    text = markdown_page(bench, "systems")
    assert (
        "![shopping: accuracy against generated tokens per question](systems/shopping.svg)" in text
    )
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "!"))) <= 100


# --- Jobs ---------------------------------------------------------------------------


def test_a_verifier_that_raises_marks_its_job_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(TASKS["shopping"], name="coins", models=("tiny-sharing",), verifier="boom:x")
    monkeypatch.setitem(TASKS, "coins", broken)

    def refuse(questions: Sequence[Question], texts: Sequence[str]) -> list[float]:
        raise RuntimeError("out of order")

    monkeypatch.setattr("maporl_agents.training.make_game._own_verifier", lambda name: refuse)
    jobs = (BenchJob("coins", "vote", 0), BenchJob("shopping", "vote", 0))
    queue = Queue(SMALL, jobs, tmp_path / "results", tmp_path / "work")
    work_off(queue)
    assert "the verifier failed: RuntimeError: out of order" in error_of(queue.work, jobs[0])
    assert workers.finished(queue) == [jobs[1]]
    with pytest.raises(RuntimeError, match="out of order"):
        scores_by(refuse, [], ["a"])


def test_a_job_that_another_process_has_is_left_to_it(tmp_path: Path) -> None:
    queue = Queue(SMALL, (BenchJob("shopping", "vote", 0),), tmp_path / "r", tmp_path / "w")
    with workers.taken(queue.work, queue.jobs[0]) as mine:
        assert mine
        work_off(queue)
    assert not workers.finished(queue)


def test_a_queue_survives_its_file(tmp_path: Path) -> None:
    queue = Queue(SMALL, (BenchJob("shopping", "vote", 0),), tmp_path / "r", tmp_path / "w", True)
    queue.save(tmp_path / "queue.json")
    assert Queue.read(tmp_path / "queue.json") == queue


def test_equal_seeds_give_equal_results_and_a_vote_sees_what_the_best_is_chosen_of(
    tmp_path: Path,
) -> None:
    first, again = (
        carry_out(BenchJob("shopping", "vote", 0), SMALL, tmp_path / name, tmp_path / "w")
        for name in ("a", "b")
    )
    assert replace(first, seconds=0) == replace(again, seconds=0)
    best = carry_out(BenchJob("shopping", "best_of_n", 0), SMALL, tmp_path / "a", tmp_path / "w")
    assert best.right[0] == first.right[0]  # of one answer there is nothing to choose
    assert len(first.tokens) == 4
    assert first.tokens[-1] == pytest.approx(first.budget, rel=0.2)


def test_a_folder_of_a_model_plays_in_plain_english(tmp_path: Path) -> None:
    settings = replace(SMALL, model=str(checkpoint(0)), answers=1)
    result = carry_out(BenchJob("coins", "vote", 0), settings, tmp_path / "r", tmp_path / "w")
    assert len(result.right[0]) == SMALL.questions
    assert result.settings["model"] == str(checkpoint(0))


@pytest.mark.thorough
def test_a_debate_is_distilled_into_one_model_that_writes_its_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, tokens = TASKS["shopping"], 6_000
    made = distilled.distilled_debate(task, tokens, 0, tmp_path)
    assert len(made.team.policies) == 1
    # Half a training of one step at least, and six messages about each text's question.
    assert made.tokens > distilled.TEXTS * distilled.MESSAGES * 10

    debate = training.team("maporl", task, tokens // 2, 0, tmp_path)
    given = distilled.right_debates(debate.config, debate.team, 0)
    assert 0 < len(given.questions) < distilled.TEXTS
    assert made.tokens == debate.tokens + given.tokens
    alone = task.training_game(num_agents=1, num_turns=1)
    raw = make_team(TeamConfig(model=task.models), num_agents=1, num_turns=1, seed=0)
    costs = []
    for student in (raw, made.team):
        learnt = distilled.messages(student, alone, debate.config, debate.team, given)
        with torch.no_grad():
            logprobs = score_tokens(student, learnt.batch, temperature=1.0).logprobs
        costs.append(-float(logprobs[learnt.batch.mask].mean()))
    assert costs[1] < costs[0] / 2

    nothing = distilled.Texts([], [], 0)
    monkeypatch.setattr(distilled, "right_debates", lambda *_: nothing)
    with pytest.raises(ValueError, match="nothing can be distilled"):
        distilled.distilled_debate(task, tokens, 0, tmp_path)


# --- The command --------------------------------------------------------------------


def test_the_command_lists_jobs_and_time_and_refuses_unknown_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = said(capsys, "--dry-run", "--only", "shopping/vote", "debate", "--seeds", "4")
    assert code == 0
    assert "core-minutes" in out
    assert "shopping vote seed 4" in out
    assert "coins debate seed 4" in out
    assert "shopping product" not in out
    assert not list(tmp_path.rglob("*.html"))
    code, _, err = said(capsys, "--only", "shopping/nonsense")
    assert code == 2
    assert "no job is called 'shopping/nonsense'" in err
    code, _, err = said(capsys, "--seeds", "1", "1")
    assert code == 2
    assert "give every seed once" in err


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_two_systems_two_seeds_end_to_end_with_a_job_that_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--only", "shopping/vote", "shopping/alone", "--seeds", "0", "1", "--questions", "6"]
    words += ["--validation-questions", "3", "--train-scale", "0.1"]
    killed: list[int] = []

    def kill_a_training() -> None:
        while not killed:
            for run in (tmp_path / "runs/systems/work/shopping").glob("alone-*/checkpoints/step-*"):
                children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
                for child in map(int, children.split()):
                    if "systems.workers" in Path(f"/proc/{child}/cmdline").read_text() and run:
                        os.kill(child, signal.SIGKILL)
                        killed.append(child)
                        return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_a_training, daemon=True)
    thread.start()
    code, out, _ = said(capsys, *words)
    killed.append(0)
    thread.join()
    assert code == 1
    assert "its process ended with code -9" in out
    left = len(list((tmp_path / "runs/systems/results").rglob("*.json")))
    assert left == 3  # the others went on
    code, out, _ = said(capsys, *words, "--docs", "page.md")
    assert code == 0
    assert "4 jobs, 3 of them done before" in out
    assert "4 of 4 planned jobs" in (tmp_path / "page.md").read_text(encoding="utf-8")
    log = (tmp_path / "runs/systems/work/log.txt").read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert not list((tmp_path / "runs/systems/work/shopping").glob("alone-?"))  # tidied
    results = [BenchResult.read(p) for p in (tmp_path / "runs/systems/results").rglob("*.json")]
    assert {one.train_tokens > 0 for one in results if one.system == "alone"} == {True}
    code, out, _ = said(capsys, *words)
    assert code == 0
    assert "4 jobs, 4 of them done before" in out


class Chat(http_servers.Handler):
    """An OpenAI-compatible server whose model always gives the same answer."""

    def do_POST(self) -> None:
        self.read()
        message = {"role": "assistant", "content": "I say \\boxed{ 1 }"}
        choice = {"message": message, "finish_reason": "stop"}
        self.send({"choices": [choice]})


def test_an_endpoint_plays_the_untrained_systems(tmp_path: Path) -> None:
    with http_servers.running(http_servers.Server(Chat)) as server:
        settings = replace(SMALL, model=f"{server.url},model=m")
        debate = carry_out(
            BenchJob("sharing", "debate", 0), settings, tmp_path / "r", tmp_path / "w"
        )
    asked = settings.task("sharing").questions("test", SMALL.questions)
    assert debate.right[-1] == tuple(float(q.answer == "1") for q in asked)
    assert debate.tokens[0] == pytest.approx(6 * len("I say \\boxed{ 1 }") / 4, rel=0.3)
    with pytest.raises(ValueError, match="an endpoint is named URL,model=NAME"):
        carry_out(
            BenchJob("sharing", "vote", 0),
            replace(SMALL, model="http://127.0.0.1:1/v1"),
            tmp_path / "r2",
            tmp_path / "w2",
        )
