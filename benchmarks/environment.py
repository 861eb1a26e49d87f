"""Speed of the environment without a model: messages per second, growth with length, import.

    python benchmarks/environment.py            # under a minute on a quiet core

Speeds are processor time of one core, the best of many short repetitions, so that other load on the
machine counts little; each is also given as a ratio to building a small dictionary, which carries
over to other machines. PettingZoo's own `performance_benchmark` runs in the same process on a
bundled environment and on this one, in wall-clock time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from pettingzoo.test import performance_benchmark
from pettingzoo.test.example_envs import generated_agents_env_v0

from maporl_env import debate_v0
from maporl_env.batched import BatchedDebate, DebateConfig
from maporl_env.types import Question

QUESTIONS = [Question(f"q/{n}", f"What is {n} + {n}?", str(2 * n)) for n in range(20)]
ANSWER = "\\boxed{12}"
GOALS = {"wrapped AEC": 10_000, "BatchedDebate": 50_000}


def play(env: Any, step: Callable[[Any], int], debates: int) -> int:
    """Play debates in steps that return the number of their messages; return the sum."""
    messages = 0
    for seed in range(debates):
        env.reset(seed=seed)
        while env.agents:
            messages += step(env)
    return messages


def aec(debates: int = 10) -> int:
    """Play through the default wrappers, reading every observation; return the message count."""

    def step(env: Any) -> int:
        over = env.last()[2]
        env.step(None if over else ANSWER)
        return not over

    return play(debate_v0.env(QUESTIONS), step, debates)


def parallel(debates: int = 10) -> int:
    """Play all agents of a turn at once; return the message count."""

    def step(env: Any) -> int:
        messages = len(env.agents)
        env.step(dict.fromkeys(env.agents, ANSWER))
        return messages

    return play(debate_v0.parallel_env(QUESTIONS), step, debates)


def batched(batches: int = 8, rewards: bool = False) -> int:
    """Play 16 debates in lock step, reading every prompt; return the number of messages."""
    batch = BatchedDebate(DebateConfig(QUESTIONS), 16)
    messages = 0
    for seed in range(batches):
        batch.reset(seed=seed)
        while prompts := batch.prompts():
            batch.step([ANSWER] * len(prompts))
            messages += len(prompts)
        if rewards:
            batch.turn_rewards()
    return messages


def long_debate(num_turns: int) -> int:
    batch = BatchedDebate(DebateConfig(QUESTIONS, num_agents=8, num_turns=num_turns), 1)
    batch.reset(seed=0)
    while prompts := batch.prompts():
        batch.step([ANSWER] * len(prompts))
    return 8 * num_turns


def dictionaries(number: int = 5_000) -> int:
    """The yardstick: build dictionaries of eight entries."""
    for n in range(number):
        dict(zip("abcdefgh", (n, n, n, n, n, n, n, n), strict=True))
    return number


def fastest(works: dict[Any, Callable[[], int]], repeats: int) -> dict[Any, float]:
    """Return the most units per second of processor time of each work.

    The works take turns, so that a busy spell of the machine hits all of them.
    """
    best = dict.fromkeys(works, 0.0)
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            units = work()
            best[name] = max(best[name], units / (time.process_time() - start))
    return best


def official(env: Any) -> float:
    """Return the turns per second that PettingZoo's benchmark prints (5 s, wall clock)."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        performance_benchmark(env)
    return float(output.getvalue().split("\n")[1].split()[0])


def import_seconds(statement: str, repeats: int = 5) -> float:
    """Return the least processor time of an interpreter that only imports, less an idle one's."""

    def spent(code: str) -> float:
        timed = f"import time\n{code}\nprint(time.process_time())"
        runs = [subprocess.check_output([sys.executable, "-c", timed]) for _ in range(repeats)]
        return min(map(float, runs))

    return spent(statement) - spent("pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60, help="of each measurement")
    args = parser.parse_args()

    works: dict[Any, Callable[[], int]] = {
        "dictionary": dictionaries,
        "wrapped AEC": aec,
        "Parallel": parallel,
        "BatchedDebate": batched,
        "BatchedDebate and its rewards": lambda: batched(rewards=True),
    }
    works |= {turns: (lambda n=turns: long_debate(n)) for turns in (5, 10, 25, 50)}
    speeds = fastest(works, args.repeats)
    yardstick = speeds["dictionary"]
    print(f"{platform.machine()}, Python {platform.python_version()}; one small dictionary takes "
          f"{1e6 / yardstick:.2f} microseconds\n")  # fmt: skip
    print("| 3 agents, 3 turns, short text | messages/s | goal | dictionaries per message |")
    print("|---|---|---|---|")
    for name in ("wrapped AEC", "Parallel", "BatchedDebate", "BatchedDebate and its rewards"):
        goal = f"{GOALS[name]:,}" if name in GOALS else ""
        print(f"| {name} | {speeds[name]:,.0f} | {goal} | {yardstick / speeds[name]:.1f} |")

    print("\n| 8 agents, one debate | microseconds per message |")
    print("|---|---|")
    for turns in (5, 10, 25, 50):
        print(f"| {turns} turns | {1e6 / speeds[turns]:.1f} |")

    print("\n| PettingZoo's performance_benchmark, wall clock | turns/s |")
    print("|---|---|")
    print(f"| {generated_agents_env_v0.env().metadata['name']} (bundled) | "
          f"{official(generated_agents_env_v0.env()):,.0f} |")  # fmt: skip
    print(f"| debate_v0, random actions | {official(debate_v0.env(QUESTIONS)):,.0f} |")

    print("\n| import | processor seconds |")
    print("|---|---|")
    for module in ("numpy", "pettingzoo", "maporl_env.debate_v0"):
        print(f"| {module} | {import_seconds(f'import {module}'):.2f} |")


if __name__ == "__main__":
    main()
