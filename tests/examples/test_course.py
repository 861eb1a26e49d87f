"""The course: every numbered example runs as its page says, and prints what it claims."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from math import comb, sqrt
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
COURSE = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return `run("01", *arguments, keyboard="")`: what the example prints, run in a new folder."""

    def run_example(number: str, *arguments: str, keyboard: str = "") -> str:
        done = start(number, *arguments, folder=tmp_path, keyboard=keyboard)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run_example


def start(
    number: str, *arguments: str, folder: Path, keyboard: str = ""
) -> subprocess.CompletedProcess[str]:
    [script] = EXAMPLES.glob(f"{number}_*.py")
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        input=keyboard,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        timeout=600,
    )


def numbers(line: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+", line)]


def line_with(text: str, output: str) -> str:
    [line] = [line for line in output.splitlines() if text in line]
    return line


class TestForm:
    def test_the_lessons_are_counted_without_a_gap(self) -> None:
        assert [script.name[:2] for script in COURSE] == [f"{n:02}" for n in range(1, 14)]

    @pytest.mark.parametrize("script", COURSE, ids=lambda script: script.stem)
    def test_is_short_and_says_what_one_learns_and_how_to_run_it(self, script: Path) -> None:
        source = script.read_text(encoding="utf-8")
        assert len(source.splitlines()) < 80
        page = ast.get_docstring(ast.parse(source)) or ""
        assert f"python examples/{script.name}" in page
        assert "You learn:" in page

    def test_the_page_of_the_course_names_every_script_and_notebook(self) -> None:
        page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
        there = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
        there |= {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.ipynb")}
        assert set(re.findall(r"\]\(([^)#]+\.(?:py|ipynb))\)", page)) == there


def test_01_a_debate_by_hand(run: Run) -> None:
    output = run("01")
    # Scores by turn: 0 0, 1 0, 1 1; gamma .3. Team means of turns 2 and 3: .5 and 1.
    first = (0 + 0.3 * 0.5 + 0.09 * 1) / 1.39
    second = (0 + 0.3 * 1) / 1.3  # agent_1, wrong in turn 2
    paid = {"agent_0": [first, 1, 1], "agent_1": [first, second, 1]}
    for agent, row in paid.items():
        [line] = [line for line in output.splitlines() if line.startswith(f"{agent}   ")]
        assert numbers(line) == pytest.approx([*row, sum(row)], abs=6e-4)
    assert numbers(line_with("/ (1 + 0.3 + 0.09)", output))[-1] == pytest.approx(first, abs=6e-4)
    opening, second_reading = output.split("agent_1 reads before turn ")[1:]
    assert "the other agents" not in opening.split("is over")[0]
    assert "A pen is 6" in second_reading.split("is over")[0]


def test_01_lets_a_person_take_a_seat(run: Run) -> None:
    right = "\\boxed{34}\n"
    output = run("01", "--you", keyboard=3 * right)
    [line] = [line for line in output.splitlines() if line.startswith("agent_1   ")]
    # Right three times; the other is wrong, right, right: all team means to come are 1.
    assert numbers(line) == [1, 1, 1, 3]


def test_02_your_own_task(run: Run) -> None:
    output = run("02")
    # Starts 9 to 12 and 1 to 11 hours: 12 is passed in all but 3 + 2 + 1 + 0 cases.
    assert "agent_0 is right in 6 of 44" in output
    assert "agent_1 is right in 44 of 44" in output
    assert "holds 44 test, 88 train questions, the same as the list: True" in output
    assert "line 4: gold answer 'half past nine'" in output


def test_03_your_own_verifier(run: Run) -> None:
    output = run("03")
    # Working: 3 of 3, 0, 2 of 3 (3 * 6 = 18, 18 + 14 = 32), 3 of 3 steps are true.
    key, working = [1, 1, 0, 0], [1, 0, 2 / 3, 1]
    mixed = [0.7 * k + 0.3 * w for k, w in zip(key, working, strict=True)]
    for name, expected in (
        ("answer key  ", key),
        ("working   ", working),
        ("0.7 key + 0.3 working", mixed),
    ):
        [line] = [line for line in output.splitlines() if line.startswith(name)]
        assert numbers(line[22:]) == pytest.approx(expected, abs=6e-3)
    assert line_with("flaky  ", output).split()[1:] == ["1.00", "no", "score", "0.67", "1.00"]
    assert "{'not a number': 1}" in output


def test_04_your_own_protocol(run: Run) -> None:
    debate, delphi = run("04").split("--- delphi")
    assert "EXPERT" in debate
    assert "the team answers (900,), key 400" in debate
    assert "EXPERT" not in delphi
    assert "  380: 1\n  400: 2\n  900: 1\n" in delphi
    assert "the team answers (400,), key 400" in delphi  # three of four, above the quorum of .6


@pytest.mark.thorough
def test_05_scripted_agents_and_voting(run: Run) -> None:
    questions, p = 300, 0.7
    output = run("05", "--questions", str(questions), "--reliability", str(p))
    rows = {line[:24].strip(): numbers(line[24:]) for line in output.splitlines()[3:10]}
    assert len(rows) == 7
    for name, (agents, vote, theory, later_agents, later_vote) in rows.items():
        number = int(name.split()[0])
        error = sqrt(p * (1 - p) / questions)
        if "copies" in name:
            assert agents == vote == later_vote
            assert theory == p
            assert vote == pytest.approx(p, abs=4 * error)
        else:
            least = number // 2 + 1
            exact = sum(
                comb(number, k) * p**k * (1 - p) ** (number - k) for k in range(least, number + 1)
            )
            assert theory == pytest.approx(exact, abs=6e-4)
            assert vote == pytest.approx(exact, abs=4 * error)
            assert agents == pytest.approx(p, abs=4 * error)
        assert later_agents == later_vote == vote
    assert rows["9 independent"][1] > rows["9 copies of one"][1] + 0.1


@pytest.mark.thorough
def test_06_influence_aware_reward(run: Run, tmp_path: Path) -> None:
    output = run("06")
    paid = {
        "convinces": [1, 1, 1],
        "is ignored": [1, (1 + 0.39 * 0.5) / 1.39, (1 + 0.5 + 0.5) / 3],
        "misleads": [0, 0, 0],
        "useful error": [0, 0.39 / 1.39, 2 / 3],
    }
    for story, row in paid.items():
        assert numbers(line_with(f"{story:14}", output)) == pytest.approx(row, abs=6e-4)
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [Path("runs", "influence_reward.png")], "below runs/, which git ignores"
    assert (tmp_path / left[0]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_07_and_08_train_and_read_the_same_run(run: Run) -> None:
    """Two steps of eight questions, written out by hand and by `maporl train`: the same numbers."""
    trained = run("07", "--steps", "2", "--questions", "8", "--held-out", "40")
    read = run("08")
    for step in (1, 2):
        by_hand = numbers(line_with(f"step {step}:", trained))
        logged = numbers(line_with(f"step   {step}:", read))
        assert by_hand[:3] == pytest.approx(logged[:3], abs=6e-3)
        assert by_hand[3] == logged[3]
    for when in ("before", "after"):
        by_hand = numbers(line_with(f"{when}: the vote", trained))
        [line] = [x for x in read.splitlines() if re.match(rf" +{when} +sampled", x)]
        *votes, margin = by_hand
        assert [*votes, margin] == [*numbers(line)[::2], numbers(line)[-1]]
    for part in ("1. What was said", "2. What came of it", "5. Early warnings", "6. The trained"):
        assert part in read
    assert "policies agent_0, agent_1" in read
    moved = [int(x) for x in re.findall(r"beside a \w+ one +\S+ of (\d+)", read)]
    assert [sum(moved[:4]), sum(moved[4:])] == [
        40 * 2 * 2
    ] * 2  # questions, agents, changes of turn


class TestLesson09:
    """r_syn = 2 with K = 2 of T = 2: against p, .2 + 2 p + .4 (1 - p) beats .8 from p = 1/8 on."""

    def check(self, output: str) -> list[list[float]]:
        exact = [numbers(x.split("response")[1]) for x in output.splitlines() if "exact best" in x]
        assert exact == [[0, 0.8], [1, pytest.approx(0.2 + 2 * 0.7 + 0.4 * 0.3)]]
        assert numbers(line_with("the equilibrium", output)) == [1, 2.2]
        return [numbers(x.split("turns")[1]) for x in output.splitlines() if "PPO after" in x]

    @pytest.mark.timeout(300)  # for a busy machine
    @pytest.mark.thorough
    def test_prints_what_is_best_beside_what_was_learnt(self, run: Run) -> None:
        pytest.importorskip("stable_baselines3", reason="the extra sb3 is not installed")
        learnt = self.check(run("09", "--steps", "256"))
        assert len(learnt) == 2  # one per partner
        assert all(0 <= rate <= 1 and 0.4 <= mean <= 2.2 for rate, mean in learnt)

    @pytest.mark.slow
    def test_ppo_finds_the_best_response(self, run: Run) -> None:
        pytest.importorskip("stable_baselines3", reason="the extra sb3 is not installed")
        (never, low), (always, high) = self.check(run("09"))
        assert (never, always) == (0, 1)
        assert low == pytest.approx(0.8)
        # A partner's coin decides between 2.2 and .6, 300 times.
        error = (2.2 - 0.6) * sqrt(0.7 * 0.3 / 300)
        assert high == pytest.approx(1.72, abs=4 * error)


@pytest.mark.timeout(300)  # for a busy machine
@pytest.mark.thorough
def test_10_a_mixed_team(run: Run) -> None:
    output = run("10", "--steps", "1", "--questions", "4")
    assert "agent_0: LlamaForCausalLM, 133,312 parameters" in output
    assert "agent_1: Qwen2ForCausalLM, 77,376 parameters" in output
    ids = re.findall(r"as the ids (\[.*\])", output)
    assert len(ids) == 2
    assert ids[0] != ids[1]
    *scores, first, second = numbers(line_with("step 1:", output))
    assert len(scores) == 3
    assert first > 0
    assert second > 0
    assert len(re.findall(r"^  turn \d agent_\d: ", output, re.MULTILINE)) == 2 * 3


def test_11_endpoint_as_agent(run: Run) -> None:
    output = run("11", "--demo")
    # 3 * 6 + 2 * 8 and 2 * 3 + 5 * 11; the copycat starts with 0 and agrees in turn 2.
    assert "the team answers 34; the key is 34" in output
    assert "the team answers 61; the key is 61" in output
    assert output.count("agent_1 (score 0.00)\n  | \\boxed{0}") == 2


@pytest.mark.thorough
def test_11_says_where_no_server_is(tmp_path: Path) -> None:
    done = start("11", "--url", "http://127.0.0.1:9/v1", folder=tmp_path)
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_12_qlora_on_one_gpu(run: Run) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra quant is not installed")
    output = run("12")
    # A layer: q, o of 64 x 64; k, v of 64 x 32; feed-forward three of 64 x 128. Half a byte each.
    weights = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert f"one base for 2 agents: {weights:,} weights in {weights // 2:,} bytes" in output
    assert "step 1: KL to the base 0.0000" in output
    # Rank 8, two maps per layer of the weights above, in float32, and the file's header.
    numbers_of_an_adapter = 2 * 8 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    sizes = [int(x.replace(",", "")) for x in re.findall(r"adapters/agent_\d: ([\d,]+)", output)]
    assert len(sizes) == 2
    assert all(0 <= size - 4 * numbers_of_an_adapter < 8000 for size in sizes)


@pytest.mark.real
@pytest.mark.timeout(600)  # on a machine that others use too
def test_13_a_real_model_asks_its_colleague(run: Run) -> None:
    """A step of two debates: that it runs and says what it does; to learn takes longer."""
    pytest.importorskip("gguf")
    output = run("13", "--steps", "1", "--questions", "2", "--held-out", "4")
    assert "You: Answer: 6 + 2 = 8" in output
    assert output.count("is right in") == 3
    assert re.search(r"step 1: right in turn 2 [01]\.\d\d", output)
    assert output.count("(told: ") == 4
